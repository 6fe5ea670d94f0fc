"""Every hyperparameter, as frozen dataclasses; presets are the YAML files beside this one."""

from mtanimate.config.loading import (
    describe,
    differences,
    flat,
    from_checkpoint,
    from_mapping,
    load_file,
    load_preset,
    override,
    preset_names,
    to_mapping,
)
from mtanimate.config.model import (
    BACKBONES,
    BackgroundConfig,
    DenseMotionConfig,
    EstimatorConfig,
    GeneratorConfig,
    HRNetConfig,
    ModelConfig,
)
from mtanimate.config.training import (
    AugmentationConfig,
    Config,
    DataConfig,
    LossConfig,
    TrainingConfig,
    TransformConfig,
)

__all__ = [
    "BACKBONES",
    "AugmentationConfig",
    "BackgroundConfig",
    "Config",
    "DataConfig",
    "DenseMotionConfig",
    "EstimatorConfig",
    "GeneratorConfig",
    "HRNetConfig",
    "LossConfig",
    "ModelConfig",
    "TrainingConfig",
    "TransformConfig",
    "describe",
    "differences",
    "flat",
    "from_checkpoint",
    "from_mapping",
    "load_file",
    "load_preset",
    "override",
    "preset_names",
    "to_mapping",
]
