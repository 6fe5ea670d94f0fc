"""A network at work: sources encoded, motion read from driving frames, sources driven, in a chosen precision."""

from collections.abc import Callable

import torch
from torch import Tensor

from mtanimate.geometry import resize
from mtanimate.models.animator import Animator, EncodedSource
from mtanimate.models.cuda_graphs import Recorded
from mtanimate.models.engine import autocast, prepare
from mtanimate.models.motion import Motion
from mtanimate.models.network import Network

# Frames computed at once. One more costs memory, not time, on a CPU.
BATCH_SIZE = {"cpu": 4, "mps": 8, "cuda": 32}
_BLACK = 2 / 255  # half precision that overflowed gives frames without a brighter value


class Performer:
    """Reads motion and drives sources. Pictures are uint8 (B, 3, R, R) on any device.

    animator: taken over, and made ready for inference; a network that was exported is as it is. precision: what it
    computes in. Where that gives values that are not finite, or black frames, the batch is computed again in float32,
    and so is all that follows; `warn` gets one line.
    """

    def __init__(self, animator: Network, precision: str, warn: Callable[[str], None]) -> None:
        self._given = animator
        self.precision = precision
        self.warn = warn
        self.animator = self._ready()

    @property
    def batch_size(self) -> int:
        return BATCH_SIZE[self.animator.device.type]

    @torch.inference_mode()
    def estimate(self, frames: Tensor) -> Motion:
        """The motion of each picture, in float32."""
        image = self._image(frames)
        with self._autocast(estimator=True):
            motion = self.animator.estimate_motion(image).to(torch.float32)
        if self._half and not _finite(motion.keypoints, motion.affine):
            self._fall_back()
            return self.estimate(frames)
        return motion

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> "Source":
        """One picture, or one for each frame that will be driven."""
        return Source(self, pictures)

    @torch.inference_mode()
    def predict_background(self, source: "Source", driving: Tensor) -> Tensor | None:
        """(B, 3, 3): the driving frames' background to the source's, where the network has a predictor."""
        image = self._image(driving)
        with self._autocast():
            background = self.animator.predict_background(source.encoded.picture, image)
        return None if background is None else background.float()

    @torch.inference_mode()
    def drive(
        self, source: "Source", motion: Motion, background: Tensor | None = None, *, lock: bool = False
    ) -> Tensor:
        """The source moved as `motion` (batch B) says: float32 (B, 3, R, R) in [0, 1].

        background: from `predict_background`. lock: where the masks say background in the source and in the result
        alike, the source's own pixels stay.
        """
        device = self.animator.device
        background = None if background is None else background.to(device)
        with self._autocast():
            rendering = self.animator.render(source.encoded, motion.to(device), background)
        driven = rendering.prediction.float()
        black = source.bright and bool((driven.amax(dim=(1, 2, 3)) < _BLACK).any())
        if self._half and (black or not _finite(driven)):
            self._fall_back()
            source.encode_again()
            return self.drive(source, motion, background, lock=lock)
        if lock:
            size = (driven.shape[2], driven.shape[3])
            still = resize(rendering.motion.masks[:, :1].float(), size) * source.background
            driven = still * source.encoded.picture + (1 - still) * driven
        return driven

    def _ready(self) -> Network:
        if not isinstance(self._given, Animator):
            return self._given
        ready = prepare(self._given, self.precision)
        return Recorded(ready, self.warn) if ready.device.type == "cuda" else ready

    def _fall_back(self) -> None:
        self.warn(f"{self.precision} gave values that are not finite, or black frames: going on in fp32")
        self.precision = "fp32"
        self.animator = self._ready()

    def _image(self, frames: Tensor) -> Tensor:
        image = frames.to(self.animator.device).float() / 255
        return image.contiguous(memory_format=torch.channels_last)

    @property
    def _half(self) -> bool:
        """Whether it computes in half precision, and could in float32: an exported network cannot."""
        return self.precision != "fp32" and isinstance(self._given, Animator)

    def _autocast(self, *, estimator: bool = False) -> torch.autocast:
        return autocast(self.animator.device, self.precision if self._half else "fp32", estimator=estimator)


class Source:
    """Encoded pictures, and what is known of them. Made by `Performer.encode`."""

    def __init__(self, performer: Performer, pictures: Tensor) -> None:
        self.performer = performer
        self.pictures = pictures
        self.bright = int(pictures.amax()) > 10
        self._background: Tensor | None = None
        self.encode_again()

    @torch.inference_mode()
    def encode_again(self) -> None:
        """In the performer's precision, which may have changed."""
        motion = self.performer.estimate(self.pictures)
        with self.performer._autocast():
            self.encoded: EncodedSource = self.performer.animator.encode_source(
                self.performer._image(self.pictures), motion
            )

    @property
    def motion(self) -> Motion:
        """Of the pictures themselves, float32."""
        return self.encoded.motion

    @property
    def background(self) -> Tensor:
        """How much of each pixel is background, by the network's own masks: (B, 1, R, R) in [0, 1]."""
        if self._background is None:
            with self.performer._autocast():
                dense = self.performer.animator.render(self.encoded, self.motion).motion
            size = (self.pictures.shape[2], self.pictures.shape[3])
            self._background = resize(dense.masks[:, :1].float(), size)
        return self._background


def _finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
