"""The layout of the authors' release -> ours: names only, every number stays as it is."""

import re

import torch
from torch import Tensor

# (pattern in the release, ours). The backbone's, the blocks' and the heads' inner names are the same.
RENAMES = [
    (r"^kp_detector\.pre_feature\.", "motion_estimator.backbone."),
    (r"^kp_detector\.transformer\.keypoint_token$", "motion_estimator.motion_tokens"),
    (r"^kp_detector\.transformer\.patch_to_embedding\.", "motion_estimator.patch_embedding."),
    (r"^kp_detector\.transformer\.mlp_head\.", "motion_estimator.keypoint_head."),
    (r"^kp_detector\.transformer\.mlp_head_jacobian\.", "motion_estimator.affine_head."),
    (r"^kp_detector\.transformer\.transformer\.layers\.(\d+)\.", r"motion_estimator.layers.\1."),
    (r"\.0\.fn\.norm\.", ".attention_norm."),
    (r"\.0\.fn\.fn\.to_out\.0\.", ".attention.out."),
    (r"\.1\.fn\.norm\.", ".mlp_norm."),
    (r"\.1\.fn\.fn\.net\.0\.", ".mlp.0."),
    (r"\.1\.fn\.fn\.net\.3\.", ".mlp.2."),
    (r"^generator\.dense_motion_network\.", "dense_motion."),
    (r"^bg_predictor\.", "background_predictor."),
]
# What we compute instead of storing, and what only the release's training used.
COMPUTED = re.compile(r"(\.down\.weight|\.pos_embedding|\.attn_mask)$")
PARTS = ("generator", "kp_detector", "bg_predictor")


def from_release(checkpoint: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of a release checkpoint (`generator`, `kp_detector`, perhaps `bg_predictor`) by our names."""
    state: dict[str, Tensor] = {}
    for part in PARTS:
        for name, tensor in (checkpoint.get(part) or {}).items():
            if COMPUTED.search(name):
                continue
            ours = f"{part}.{name}"
            for pattern, replacement in RENAMES:
                ours = re.sub(pattern, replacement, ours)
            if ours.endswith(".0.fn.fn.to_qkv.weight"):
                prefix = ours.removesuffix("0.fn.fn.to_qkv.weight") + "attention."
                for target, third in zip(("query", "key", "value"), torch.chunk(tensor, 3), strict=True):
                    state[f"{prefix}{target}.weight"] = third.clone()
            else:
                state[ours] = tensor[0] if ours.endswith(".motion_tokens") else tensor
    return state
