"""The YAML configuration files of the tools whose checkpoints are imported and exported."""

from pathlib import Path
from reprlib import repr as shown  # shortens wrong values
from typing import Any

import yaml

from mtanimate.config import (
    HeatmapEstimatorConfig,
    HRNetConfig,
    ModelConfig,
    MotionTransformerConfig,
    SplineEstimatorConfig,
    from_mapping,
    to_mapping,
)
from mtanimate.config.model import SPLINE_POINTS
from mtanimate.errors import InputError
from mtanimate.reading import MOST_YAML, read_text, read_yaml

_MISSING = object()
_HOURGLASS = ("block_expansion", "max_features", "num_blocks")
SPLINE_BLOCKS = 2  # residual blocks at each size of TPSMM's generator
_STAGE = ("NUM_MODULES", "NUM_BLOCKS", "NUM_CHANNELS")
# Both tools build and save a discriminator beside the network; their losses do not use it, or weigh it by 0.
_DISCRIMINATOR = {"scales": [1], "block_expansion": 32, "max_features": 512, "num_blocks": 4, "sn": True}


class _Settings:
    """Nested mappings, read by dotted keys; errors name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.values = read_yaml(read_text(path, MOST_YAML))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the configuration '{path}' ({error})") from error
        except ValueError as error:
            raise InputError(f"'{path}' is no YAML: {error}") from error

    def __call__(self, key: str, default: Any = _MISSING) -> Any:
        value = self.values
        for name in key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING and default is _MISSING:
            raise InputError(f"'{self.path}' has no {key}: is it the checkpoint's own configuration?")
        return default if value is _MISSING else value

    def refuse(self, key: str, wanted: Any, what: str) -> None:
        """Raises InputError where a setting has another value than `wanted`, the only one that is supported."""
        found = self(key, wanted)
        if found != wanted:
            raise InputError(f"'{self.path}': {key} is {shown(found)}: {what}")


def read_configuration(path: Path, layout: str) -> ModelConfig:
    """Reads the network from another tool's configuration file.

    Args:
        path: of the YAML file.
        layout: `fomm`, `release` or `tpsmm`.

    Raises:
        InputError: the file cannot be read, lacks a setting, or asks for something that is not supported.
    """
    settings = _Settings(path)
    settings.refuse("model_params.common_params.num_channels", 3, "pictures here have three channels")
    read = {"fomm": _fomm, "tpsmm": _tpsmm}.get(layout, _release)
    try:
        values = read(settings)
    except (IndexError, KeyError, TypeError, ValueError) as error:  # e.g. a number instead of a list
        raise InputError(f"'{path}' is not such a configuration ({type(error).__name__}: {error})") from error
    if layout != "tpsmm":
        values |= {"num_keypoints": settings("model_params.common_params.num_kp"), **_generator(settings, layout)}
    return from_mapping(ModelConfig, values, f"'{path}': model")


def _fomm(settings: _Settings) -> dict[str, Any]:
    prefix = "model_params.kp_detector_params"
    affine = settings("model_params.common_params.estimate_jacobian", False)
    return {
        # The file may omit the size; it is 256 for every published checkpoint.
        "resolution": max(settings("dataset_params.frame_shape", [256, 256, 3])[:2]),
        "estimator": {
            "name": "fomm" if affine else "monkey-net",
            "block_expansion": settings(f"{prefix}.block_expansion"),
            "max_features": settings(f"{prefix}.max_features"),
            "num_blocks": settings(f"{prefix}.num_blocks"),
            "scale_factor": settings(f"{prefix}.scale_factor", 1),
            "temperature": settings(f"{prefix}.temperature"),
            "padding": settings(f"{prefix}.pad", 0),
            "shared_affine": bool(affine and settings(f"{prefix}.single_jacobian_map", False)),
        },
    }


def _release(settings: _Settings) -> dict[str, Any]:
    settings.refuse("MODEL.DATA_PREPROCESS", False, "pictures are not normalised here")
    settings.refuse("MODEL.FIX_IMG2MOTION_ATTENTION", False, "attention is not masked here")
    settings.refuse("MODEL.POS_EMBEDDING_TYPE", "sine-full", "the position code here is the sine code")
    settings.refuse("model_params.bg_predictor_params.bg_type", "affine", "the background moves by an affine map here")
    patch, picture = settings("MODEL.PATCH_SIZE"), settings("MODEL.IMAGE_SIZE")
    if len(set(patch)) != 1:
        raise InputError(f"'{settings.path}': MODEL.PATCH_SIZE is {shown(patch)}: patches are square here")
    background = None
    if settings("model_params.use_bg_predictor", False):
        background = {name: settings(f"model_params.bg_predictor_params.{name}") for name in _HOURGLASS}
    stages = [{key: settings(f"MODEL.EXTRA.STAGE{stage}.{key}") for key in _STAGE} for stage in (2, 3)]
    return {
        "resolution": max(picture),
        "background": background,
        "estimator": {
            "name": "motion-transformer",
            "variant": "release",
            "patch_size": patch[0],
            "dim": settings("MODEL.DIM"),
            "layers": settings("MODEL.TRANSFORMER_DEPTH"),
            "heads": settings("MODEL.TRANSFORMER_HEADS"),
            "mlp_ratio": settings("MODEL.TRANSFORMER_MLP_RATIO"),
            "backbone": {
                "widths": stages[1]["NUM_CHANNELS"],
                "stage2_modules": stages[0]["NUM_MODULES"],
                "stage2_blocks": stages[0]["NUM_BLOCKS"],
                "stage3_modules": stages[1]["NUM_MODULES"],
                "stage3_blocks": stages[1]["NUM_BLOCKS"],
            },
        },
    }


def _tpsmm(settings: _Settings) -> dict[str, Any]:
    common, generator = "model_params.common_params", "model_params.generator_params"
    masks, codes = "model_params.dense_motion_params", "model_params.avd_network_params"
    multi = settings(f"{common}.multi_mask", True)
    return {
        # The authors' own files give no size: their checkpoints are for 256, or for 384 (TED), which then has to be
        # said by the checkpoint's published name.
        "resolution": max((settings("dataset_params.frame_shape", None) or [256, 256, 3])[:2]),
        "num_keypoints": SPLINE_POINTS * settings(f"{common}.num_tps"),
        "estimator": {
            "name": "tpsmm",
            "identity_width": settings(f"{codes}.id_bottle_size", 0),
            "pose_width": settings(f"{codes}.pose_bottle_size", 0),
        },
        "generator": {
            name: settings(f"{generator}.{name}") for name in ("block_expansion", "max_features", "num_down_blocks")
        }
        | {"num_bottleneck_blocks": SPLINE_BLOCKS, "inpainting": True},
        "dense_motion": {name: settings(f"{masks}.{name}") for name in _HOURGLASS}
        | {
            "scale_factor": settings(f"{masks}.scale_factor", 0.25),
            "keypoint_variance": settings(f"{masks}.kp_variance", 0.01),
            "multi_occlusion": multi,
            "exact_sampling": True,
            "black_outside": True,
        },
        "background": {"resnet": True, "block_expansion": 64} if settings(f"{common}.bg", False) else None,
    }


def _generator(settings: _Settings, layout: str) -> dict[str, Any]:
    prefix = "model_params.generator_params"
    masks = f"{prefix}.dense_motion_params"
    names = ("block_expansion", "max_features", "num_down_blocks", "num_bottleneck_blocks")
    return {
        "generator": {name: settings(f"{prefix}.{name}") for name in names}
        | {"skips": layout == "release" and settings(f"{prefix}.skips", False)},
        "dense_motion": {name: settings(f"{masks}.{name}") for name in _HOURGLASS}
        | {
            "scale_factor": settings(f"{masks}.scale_factor", 1),
            "keypoint_variance": settings(f"{masks}.kp_variance", 0.01),
            "occlusion": settings(f"{prefix}.estimate_occlusion_map", False),
        },
    }


def write_configuration(config: ModelConfig, layout: str) -> str:
    """The YAML that another tool needs beside the weights.

    Args:
        config: of the network.
        layout: `fomm`, `release` or `tpsmm`.
    """
    values = {"fomm": _fomm_values, "release": _release_values, "tpsmm": _tpsmm_values}[layout](config)
    return yaml.safe_dump(values, sort_keys=False)


def _common_values(config: ModelConfig, affine: bool) -> dict[str, Any]:
    generator, masks = to_mapping(config.generator), to_mapping(config.dense_motion)
    skips, occlusion = generator.pop("skips"), masks.pop("occlusion")
    masks["kp_variance"] = masks.pop("keypoint_variance")
    generator |= {"estimate_occlusion_map": occlusion, "dense_motion_params": masks}
    return {
        "dataset_params": {"frame_shape": [config.resolution, config.resolution, 3]},
        "model_params": {
            "common_params": {"num_kp": config.num_keypoints, "num_channels": 3, "estimate_jacobian": affine},
            "generator_params": generator | ({"skips": True} if skips else {}),
            "discriminator_params": _DISCRIMINATOR,
        },
    }


def _fomm_values(config: ModelConfig) -> dict[str, Any]:
    assert isinstance(config.estimator, HeatmapEstimatorConfig)
    estimator = to_mapping(config.estimator)
    values = _common_values(config, affine=estimator.pop("name") == "fomm")
    shared = estimator.pop("shared_affine")
    detector = {("pad" if name == "padding" else name): value for name, value in estimator.items()}
    values["model_params"]["kp_detector_params"] = detector | ({"single_jacobian_map": True} if shared else {})
    return values


def _release_values(config: ModelConfig) -> dict[str, Any]:
    estimator = config.estimator
    assert isinstance(estimator, MotionTransformerConfig)
    values = _common_values(config, affine=True)
    values["model_params"]["use_bg_predictor"] = config.background is not None
    if config.background is not None:
        values["model_params"]["bg_predictor_params"] = to_mapping(config.background) | {"bg_type": "affine"}
    side = config.resolution
    values["MODEL"] = {
        "NUM_JOINTS": config.num_keypoints,
        "BASE_CHANNEL": estimator.backbone.widths[0],
        "ESTIMATE_JACOBIAN": True,
        "DATA_PREPROCESS": False,
        "FIX_IMG2MOTION_ATTENTION": False,
        "INIT": True,
        "INIT_WEIGHTS": False,
        "PRETRAINED": "",
        "TEMPERATURE": 0.1,
        "TRANSFORMER_DEPTH": estimator.layers,
        "TRANSFORMER_HEADS": estimator.heads,
        "TRANSFORMER_MLP_RATIO": estimator.mlp_ratio,
        "POS_EMBEDDING_TYPE": "sine-full",
        "DIM": estimator.dim,
        "PATCH_SIZE": [estimator.patch_size, estimator.patch_size],
        "IMAGE_SIZE": [side, side],
        "HEATMAP_SIZE": [side // 4, side // 4],
        "EXTRA": {"FINAL_CONV_KERNEL": 1, **_stages(estimator.backbone)},
    }
    return values


def _tpsmm_values(config: ModelConfig) -> dict[str, Any]:
    estimator, generator, masks = config.estimator, config.generator, config.dense_motion
    assert isinstance(estimator, SplineEstimatorConfig)
    sizes = to_mapping(generator)
    values: dict[str, Any] = {
        "common_params": {
            "num_tps": config.num_keypoints // SPLINE_POINTS,
            "num_channels": 3,
            "bg": config.background is not None,
            "multi_mask": masks.multi_occlusion,
        },
        "generator_params": {name: sizes[name] for name in ("block_expansion", "max_features", "num_down_blocks")},
        "dense_motion_params": {name: getattr(masks, name) for name in _HOURGLASS}
        | {"scale_factor": masks.scale_factor, "kp_variance": masks.keypoint_variance},
    }
    if estimator.identity_width:
        widths = {"id_bottle_size": estimator.identity_width, "pose_bottle_size": estimator.pose_width}
        values["avd_network_params"] = widths
    side = config.resolution
    return {"dataset_params": {"frame_shape": [side, side, 3]}, "model_params": values}


def _stages(backbone: HRNetConfig) -> dict[str, Any]:
    stages = [
        (2, backbone.stage2_modules, backbone.stage2_blocks),
        (3, backbone.stage3_modules, backbone.stage3_blocks),
    ]
    return {
        f"STAGE{branches}": {
            "NUM_MODULES": modules,
            "NUM_BRANCHES": branches,
            "BLOCK": "BASIC",
            "NUM_BLOCKS": list(blocks),
            "NUM_CHANNELS": list(backbone.widths[:branches]),
            "FUSE_METHOD": "SUM",
        }
        for branches, modules, blocks in stages
    }
