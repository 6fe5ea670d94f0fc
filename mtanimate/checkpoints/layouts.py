"""The names that other tools give to the same weights, and the tensors that they store and we compute.

Numbers stay as they are: a weight goes into a layout and comes back to the bit.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from mtanimate.config import HeatmapEstimatorConfig, ModelConfig, MotionTransformerConfig
from mtanimate.geometry import antialias_kernel
from mtanimate.models.motion_transformer import sine_position

# Parts of a checkpoint that hold the network. Whatever else a file has is training's.
PARTS = ("generator", "kp_detector", "bg_predictor")
# What shows a layout: an entry that only it has.
SIGNATURES = {"release": "kp_detector.transformer.keypoint_token", "fomm": "kp_detector.kp.weight"}

_GENERATOR = [(r"^dense_motion\.", "generator.dense_motion_network.")]
# (our names, theirs), in turn; inner names of blocks, heads and of the backbone are the same.
RENAMES = {
    "fomm": [
        (r"^motion_estimator\.hourglass\.", "kp_detector.predictor."),
        (r"^motion_estimator\.heatmap_head\.", "kp_detector.kp."),
        (r"^motion_estimator\.affine_head\.", "kp_detector.jacobian."),
        *_GENERATOR,
    ],
    "release": [
        (r"^motion_estimator\.backbone\.", "kp_detector.pre_feature."),
        (r"^motion_estimator\.motion_tokens$", "kp_detector.transformer.keypoint_token"),
        (r"^motion_estimator\.patch_embedding\.", "kp_detector.transformer.patch_to_embedding."),
        (r"^motion_estimator\.keypoint_head\.", "kp_detector.transformer.mlp_head."),
        (r"^motion_estimator\.affine_head\.", "kp_detector.transformer.mlp_head_jacobian."),
        (r"^motion_estimator\.layers\.", "kp_detector.transformer.transformer.layers."),
        (r"\.attention_norm\.", ".0.fn.norm."),
        (r"\.attention\.(query|key|value)\.", ".0.fn.fn.to_qkv."),
        (r"\.attention\.out\.", ".0.fn.fn.to_out.0."),
        (r"\.mlp_norm\.", ".1.fn.norm."),
        (r"(layers\.\d+)\.mlp\.0\.", r"\1.1.fn.fn.net.0."),
        (r"(layers\.\d+)\.mlp\.2\.", r"\1.1.fn.fn.net.3."),
        (r"^background_predictor\.", "bg_predictor."),
        *_GENERATOR,
    ],
}
POSITION = "kp_detector.transformer.pos_embedding"
_THIRDS = ("query", "key", "value")


def their_name(name: str, layout: str) -> str:
    """`part.name` in the layout, for one of ours."""
    for pattern, replacement in RENAMES[layout]:
        name = re.sub(pattern, replacement, name)
    return name


def to_layout(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Our weights by `part.name`. Queries, keys and values stand in one entry there, tokens have a batch of 1."""
    thirds: dict[str, list[Tensor]] = {}
    theirs = {}
    for name, tensor in state.items():
        target = their_name(name, layout)
        if target.endswith(".to_qkv.weight"):
            thirds.setdefault(target, []).append(tensor)
            theirs[target] = torch.cat(thirds[target])
        else:
            theirs[target] = tensor[None] if name.endswith(".motion_tokens") else tensor
    return theirs


def from_layout(theirs: dict[str, Tensor], names: Iterable[str], layout: str) -> dict[str, Tensor]:
    """The weights of these names of ours, all of which `theirs` (by `part.name`) must have."""
    ours = {}
    for name in names:
        tensor = theirs[their_name(name, layout)]
        third = name.split(".")[-2]
        if third in _THIRDS:
            tensor = tensor.chunk(3)[_THIRDS.index(third)]
        ours[name] = tensor[0] if name.endswith(".motion_tokens") else tensor
    return ours


def computed(config: ModelConfig, layout: str) -> dict[str, Tensor]:
    """What the layout stores besides weights, by `part.name`: blurs before a reduction, the position code."""
    kernels = {"generator.dense_motion_network.down.weight": config.dense_motion.scale_factor}
    estimator = config.estimator
    if isinstance(estimator, HeatmapEstimatorConfig):
        kernels["kp_detector.down.weight"] = estimator.scale_factor
    theirs = {name: antialias_kernel(scale).repeat(3, 1, 1, 1) for name, scale in kernels.items() if scale != 1}
    if layout == "release":
        assert isinstance(estimator, MotionTransformerConfig)
        side = config.resolution // (4 * estimator.patch_size)
        theirs[POSITION] = sine_position(side, side, estimator.dim)[None]
    return theirs


def token_grid(position: Tensor) -> tuple[int, int] | None:
    """Rows and columns of image tokens whose sine code this (1, N, d) is; None where it is no such code."""
    count, dim = position.shape[1:]
    if dim % 4:
        return None
    for rows in range(1, count + 1):
        if count % rows == 0:
            code = sine_position(rows, count // rows, dim)
            if torch.allclose(code, position[0].float(), atol=1e-5):
                return rows, count // rows
    return None
