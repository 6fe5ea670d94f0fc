"""The first-order motion model's small fixtures: its image generator has the layout of ours without skips."""

from functools import cache

import torch
from golden import release_checkpoint

from mtanimate.config import DenseMotionConfig, GeneratorConfig
from mtanimate.models.dense_motion import DenseMotion, DenseMotionNetwork
from mtanimate.models.generator import Generator
from mtanimate.models.motion import Motion

CASES = ["fomm_small", "fomm_small_nojac"]
SMALL = {
    "fomm_small": DenseMotionConfig(8, 32, 3),
    "fomm_small_nojac": DenseMotionConfig(8, 48, 3, occlusion=False),
}
PARTS = {"fomm_small": 5, "fomm_small_nojac": 10}
PREFIX = "dense_motion_network."


@cache
def fomm_networks(name: str) -> tuple[DenseMotionNetwork, Generator]:
    state = {
        key: tensor
        for key, tensor in release_checkpoint(name)["generator"].items()
        if not key.endswith("down.weight")  # computed here, not stored
    }
    dense_motion = DenseMotionNetwork(SMALL[name], PARTS[name])
    dense_motion.load_state_dict(
        {key.removeprefix(PREFIX): tensor for key, tensor in state.items() if key.startswith(PREFIX)}
    )
    generator = Generator(GeneratorConfig(8, 32, num_bottleneck_blocks=2, skips=False))
    generator.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith(PREFIX)})
    return dense_motion.eval().requires_grad_(False), generator.eval().requires_grad_(False)


def motions(io: dict[str, torch.Tensor], transfer: str) -> tuple[Motion, Motion]:
    """The stored motions of source and driving frames; without Jacobians A is the identity."""
    found = []
    for which in ("source", "driving" if transfer == "abs" else transfer):
        keypoints = io[f"kp_{which}_value"]
        identity = torch.eye(2).expand(*keypoints.shape, 2)
        found.append(Motion(keypoints, io.get(f"kp_{which}_jacobian", identity)))
    return found[0], found[1]


def dense_from(io: dict[str, torch.Tensor], transfer: str) -> DenseMotion:
    """The stored masks, flow and occlusion."""
    occlusion = io.get(f"{transfer}_occlusion_map")
    return DenseMotion(io[f"{transfer}_mask"], io[f"{transfer}_deformation"], occlusion)
