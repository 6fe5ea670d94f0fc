"""What animating needs of a network: `Animator` has it, and a network that was exported."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from mtanimate.config import ModelConfig
from mtanimate.devices import out_of_memory
from mtanimate.errors import MTAnimateError
from mtanimate.geometry import resize
from mtanimate.inference.cuda_graphs import Recorded
from mtanimate.inference.engine import Prepared, autocast
from mtanimate.models.animator import Animator, EncodedSource, Rendering
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


# Frames computed at once. One more costs memory, not time, on a CPU.
BATCH_SIZE = {"cpu": 4, "mps": 8, "cuda": 32}
_BLACK = 2 / 255  # half precision that overflowed gives frames without a brighter value
T = TypeVar("T")


class Performer:
    """Reads motion and drives sources. Pictures are uint8 (B, 3, R, R) on any device.

    network: an `Animator` is taken over, and made ready for inference; one that was exported is as it is. precision:
    what it computes in. batch_size: frames that callers give at once; None: what suits the device.

    What goes wrong on the way is mended, and `warn` gets one line. Where half precision gives values that are not
    finite, or black frames, the batch is computed again in float32, and so is all that follows. Where the device has
    too little memory, half as many frames are computed at once from then on.
    """

    def __init__(
        self, network: Network | Prepared, precision: str, warn: Callable[[str], None], batch_size: int | None = None
    ) -> None:
        self._given = Prepared(network) if isinstance(network, Animator) else network
        self.precision = precision
        self.warn = warn
        self.animator = self._ready()
        self.batch_size = batch_size or BATCH_SIZE[self.animator.device.type]
        self._at_once = self.batch_size
        self._holds = False  # whether a frame had to be, and it was said

    @torch.inference_mode()
    def estimate(self, frames: Tensor) -> Motion:
        """The motion of each picture, in float32; not finite where float32 gives no other."""
        return Motion.cat(self._in_parts(lambda part: self._estimate(frames[part]), len(frames)))

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> "Source":
        """One picture, or one for each frame that will be driven."""
        source = Source(self, pictures)
        if len(pictures) == 1:  # of many, only those that are driven at once are kept encoded
            self._in_parts(source.encoded, 1)
        return source

    @torch.inference_mode()
    def predict_background(self, source: "Source", driving: Tensor) -> Tensor | None:
        """(B, 3, 3): the driving frames' background to the source's, where the network has a predictor."""
        if self.animator.config.background is None:
            return None
        return torch.cat(self._in_parts(lambda part: self._background(source, driving, part), len(driving)))

    @torch.inference_mode()
    def drive(
        self, source: "Source", motion: Motion, background: Tensor | None = None, *, lock: bool = False
    ) -> Tensor:
        """The source moved as `motion` (batch B) says: float32 (B, 3, R, R) in [0, 1].

        background: from `predict_background`. lock: where the masks say background in the source and in the result
        alike, the source's own pixels stay. Frames that are not finite in float32 either show the one before.
        """
        parts = self._in_parts(lambda part: self._drive(source, motion, background, lock, part), len(motion))
        return self._held(source, torch.cat(parts))

    def _estimate(self, frames: Tensor) -> Motion:
        with self._autocast(estimator=True):
            motion = self.animator.estimate_motion(self._image(frames)).to(torch.float32)
        if self._half and not motion.is_finite().all():
            self._fall_back()
            return self._estimate(frames)
        return motion

    def _background(self, source: "Source", driving: Tensor, part: slice) -> Tensor:
        with self._autocast():
            picture = source.encoded(part).picture
            background = self.animator.predict_background(picture, self._image(driving[part]))
        assert background is not None
        if self._half and not background.isfinite().all():
            self._fall_back()
            return self._background(source, driving, part)
        return background.float()

    def _drive(self, source: "Source", motion: Motion, background: Tensor | None, lock: bool, part: slice) -> Tensor:
        device, encoded = self.animator.device, source.encoded(part)
        behind = None if background is None else background[part].to(device)
        with self._autocast():
            rendering = self.animator.render(encoded, motion[part].to(device), behind)
        # Where a flow is not finite, the picture's corner is read: finite, and wrong.
        readable = rendering.motion.flow.isfinite().flatten(1).all(dim=1)[:, None, None, None]
        driven = torch.where(readable, rendering.prediction.float(), torch.nan)
        black = source.bright and bool((driven.amax(dim=(1, 2, 3)) < _BLACK).any())
        if self._half and (black or not driven.isfinite().all()):
            self._fall_back()
            return self._drive(source, motion, background, lock, part)
        if lock:
            size = (driven.shape[2], driven.shape[3])
            still = resize(rendering.motion.masks[:, :1].float(), size) * source.background(part)
            driven = still * encoded.picture + (1 - still) * driven
        return driven

    def _held(self, source: "Source", driven: Tensor) -> Tensor:
        """In place: frames that are not finite show the one before; the very first, the source itself."""
        whole = driven.isfinite().flatten(1).all(dim=1).tolist()
        if not all(whole) and not self._holds:
            self._holds = True
            self.warn(f"the network gives values that are not finite, in {self.precision}: such frames show the last")
        before = self._image(source.pictures[:1])[0] if source.shown is None else source.shown
        for index, good in enumerate(whole):
            if not good:
                driven[index] = before
            before = driven[index]
        source.shown = before.clone()
        return driven

    def _in_parts(self, work: Callable[[slice], T], count: int) -> list[T]:
        """`work` of frames 0 to `count`, with as many at once as fit the device's memory. Raises MTAnimateError where
        one does not."""
        results: list[T] = []
        done = 0
        while done < count:
            part = slice(done, min(done + self._at_once, count))
            size = part.stop - done
            try:
                results.append(work(part))
                done = part.stop
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise MTAnimateError(
                        f"{self.animator.device} is out of memory with one frame at a time: close what else uses it, "
                        "or give --device cpu"
                    ) from error
            # Not among the lines above: there, the error still holds what was computed so far.
            self._at_once = size // 2
            if isinstance(self.animator, Recorded):
                self.animator.forget()
            self.warn(f"{self.animator.device} is out of memory with {size} frames at once: going on with {size // 2}")
        return results

    def _ready(self) -> Network:
        if not isinstance(self._given, Prepared):
            return self._given
        ready = self._given.in_precision(self.precision)
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
        return self.precision != "fp32" and isinstance(self._given, Prepared)

    def _autocast(self, *, estimator: bool = False) -> torch.autocast:
        return autocast(self.animator.device, self.precision if self._half else "fp32", estimator=estimator)


class Source:
    """Pictures that are driven, and what is known of them. Made by `Performer.encode`.

    motion: of the pictures themselves, float32. bright: whether they may not become black. shown: the last frame that
    was made of them, (3, R, R).
    """

    def __init__(self, performer: Performer, pictures: Tensor) -> None:
        self.performer = performer
        self.pictures = pictures
        self.motion = performer.estimate(pictures)
        self.bright = int(pictures.amax()) > 10
        self.shown: Tensor | None = None
        self._kept: tuple[Network, slice, EncodedSource] | None = None
        self._background: Tensor | None = None

    def encoded(self, part: slice) -> EncodedSource:
        """What drives these frames: one picture all of them, else each its own. By the performer's network of now: it
        may have changed since they were last asked for."""
        part = slice(0, 1) if len(self.pictures) == 1 else part
        network = self.performer.animator
        if self._kept is None or self._kept[0] is not network or self._kept[1] != part:
            self._background = None
            with self.performer._autocast():
                image = self.performer._image(self.pictures[part])
                self._kept = network, part, network.encode_source(image, self.motion[part])
        return self._kept[2]

    def background(self, part: slice) -> Tensor:
        """How much of each pixel is background, by the network's own masks: (B, 1, R, R) in [0, 1]."""
        encoded = self.encoded(part)
        if self._background is None:
            with self.performer._autocast():
                dense = self.performer.animator.render(encoded, encoded.motion).motion
            size = (self.pictures.shape[2], self.pictures.shape[3])
            self._background = resize(dense.masks[:, :1].float(), size)
        return self._background
