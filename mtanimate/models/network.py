"""What animating needs of a network: `Animator` has it, and a network that was exported."""

from typing import Protocol

import torch
from torch import Tensor

from mtanimate.config import ModelConfig
from mtanimate.models.animator import EncodedSource, Rendering
from mtanimate.models.motion import Motion


class Network(Protocol):
    """See `Animator`'s methods."""

    config: ModelConfig

    @property
    def device(self) -> torch.device: ...

    def estimate_motion(self, frames: Tensor) -> Motion: ...

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource: ...

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering: ...

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None: ...
