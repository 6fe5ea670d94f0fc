"""One source, driven by batch after batch of frames."""

from collections.abc import Callable

import torch
from torch import Tensor

from mtanimate.devices import DTYPES
from mtanimate.models.animator import Animator, EncodedSource
from mtanimate.models.motion import Motion, movement_scale, transfer_relative

# Frames computed at once. One more costs memory, not time, on a CPU.
BATCH_SIZE = {"cpu": 4, "mps": 8, "cuda": 32}


class Performer:
    """Encodes the source once, then drives it.

    relative: the driver's movement since the first driving frame is added to the source's own pose; else the driver's
    pose is taken over, and the background moves as the network predicts, where it does.
    precision: what the network computes in; a batch that is not finite is computed again in float32, and
    so is all that follows.
    """

    def __init__(self, animator: Animator, precision: str, *, relative: bool, warn: Callable[[str], None]) -> None:
        self.animator = animator.channels_last()
        self.precision = precision
        self.relative = relative
        self.warn = warn
        self.source_frames: Tensor | None = None
        self.source: EncodedSource | None = None
        self.reference_frame: Tensor | None = None
        self.reference: Motion | None = None
        self.scale = 1.0

    @torch.inference_mode()
    def set_source(self, picture: Tensor) -> None:
        """picture: uint8 (1, 3, R, R). The next driving frame is the first of its performance."""
        self.source_frames = self._image(picture)
        self.reference_frame = self.reference = None
        with self._autocast():
            self.source = self.animator.encode_source(self.source_frames)

    @torch.inference_mode()
    def perform(self, frames: Tensor) -> Tensor:
        """Driving frames uint8 (B, 3, R, R) -> the source moved as they move: (B, 3, R, R) in [0, 1]."""
        image = self._image(frames)
        driven = self._drive(image)
        if not torch.isfinite(driven).all():
            self.warn(f"{self.precision} gave values that are not finite: going on in fp32")
            self.precision, self.reference = "fp32", None
            assert self.source_frames is not None
            self.source = self.animator.encode_source(self.source_frames)
            driven = self._drive(image)
        return driven

    def _drive(self, image: Tensor) -> Tensor:
        assert self.source is not None, "set_source comes first"
        with self._autocast():
            motion = self.animator.estimate_motion(image)
            if not self.relative:
                background = self.animator.predict_background(self.source.picture, image)
                return self.animator.drive(self.source, motion, background)
            if self.reference is None:
                self._set_reference(image[:1])
            assert self.reference is not None
            return self.animator.drive(
                self.source, transfer_relative(self.source.motion, motion, self.reference, self.scale)
            )

    def _set_reference(self, first: Tensor) -> None:
        """Called again, with the same first frame, where the precision has changed."""
        assert self.source is not None
        if self.reference_frame is None:
            self.reference_frame = first
        self.reference = self.animator.estimate_motion(self.reference_frame)
        self.scale = movement_scale(self.source.motion, self.reference)

    def _image(self, frames: Tensor) -> Tensor:
        image = frames.to(self.animator.device).float() / 255
        return image.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.animator.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")
