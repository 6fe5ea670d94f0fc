"""Between a checkpoint and a call: `Predictor` drives pictures with motion, and mends what goes wrong on the way.

predictor = Predictor.load("default")
predictor.set_source(picture)
frames = predictor.predict(driving)
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mtanimate.devices import Precision, out_of_memory
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import square_frames
from mtanimate.geometry import resize
from mtanimate.inference.cuda_graphs import CapturedNetwork
from mtanimate.inference.engine import PreparedNetwork, autocast
from mtanimate.inference.enlargement import Layers, at_rest, take_apart
from mtanimate.inference.loading import LoadedNetwork, Network, load_network
from mtanimate.inference.prefetch import to_frames
from mtanimate.inference.threads import frames_at_once, side_by_side
from mtanimate.models.animator import Animator, EncodedSource
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

BATCH_SIZE = {"cpu": 4, "mps": 8, "cuda": 32}  # frames per batch; on a CPU, those of exported networks
_BLACK = 2 / 255  # half precision that overflowed gives frames without a brighter value
T = TypeVar("T")
Frames = TypeVar("Frames", Tensor, Layers)


class _HalfPrecisionFails(Exception):
    """Half precision gave values that are not finite, or a black frame."""


class Predictor:
    """Reads motion from frames and drives sources with it.

    Set a source once and predict as often as you like. Two other uses share the same network: `encode` and `drive`
    serve several sources side by side, and `estimate` alone reads motion.

    Failures on the way are mended, and `warn` gets one line about each. Where half precision gives values that are not
    finite, or black frames, the batch is computed again in float32, and so is everything after it. Where the device
    runs out of memory, batches have half as many frames from then on.

    A predictor serves one thread at a time. Predictors of the same `LoadedNetwork` may run in several threads.

    Args:
        network: An `Animator` is taken over and made ready for inference. An exported network is used as it is.
        precision: What to compute in: fp32, fp16 or bf16; for an exported network, what it was exported in.
        warn: Gets warnings, a line at a time.
        batch_size: Frames that callers should give at once. None means what suits the device.

    Example:
        >>> from mtanimate import Predictor
        >>> predictor = Predictor.load("default")
        >>> predictor.set_source(picture)            # uint8 RGB (H, W, 3)
        >>> frames = predictor.predict(driving)      # uint8 RGB (B, H, W, 3) -> (B, R, R, 3)

        Here the source takes over the driver's pose. To add the driver's movement to the source's own pose instead,
        retarget the motion first:

        >>> from mtanimate.animation.retargeting import RelativeTransfer
        >>> motion, rest = predictor.read_motion(driving), predictor.source.motion
        >>> frames = predictor.predict(RelativeTransfer(motion, reference=motion[:1]).onto(rest, rest))
    """

    def __init__(
        self,
        network: Network | PreparedNetwork,
        precision: str,
        warn: Callable[[str], None],
        batch_size: int | None = None,
    ) -> None:
        self._given = PreparedNetwork(network) if isinstance(network, Animator) else network
        self.precision = precision
        self.warn = warn
        self.network = self._ready()
        kind = self.network.device.type
        self._parallel = kind == "cpu" and isinstance(self._given, PreparedNetwork)
        self.batch_size = batch_size or (frames_at_once() if self._parallel else BATCH_SIZE[kind])
        self._at_once = self.batch_size
        self._held_before = False  # whether a frame had to be held, which is said once
        self._source: Source | None = None

    @classmethod
    def load(
        cls,
        checkpoint: str = "default",
        *,
        device: str = "auto",
        precision: Precision = "auto",
        backend: str = "auto",
        batch_size: int | None = None,
        allow_code: bool = False,
        warn: Callable[[str], None] = lambda line: None,
    ) -> "Predictor":
        """A predictor of a named checkpoint, of a file, or of a folder written by `mtanimate export`.

        Args:
            warn: Gets remarks and warnings, a line at a time. The other options are those of `load_network`.

        Raises:
            InputError: An option or a file is wrong.
        """
        return cls.of(load_network(checkpoint, device, precision, backend, warn, batch_size, allow_code), warn)

    @classmethod
    def of(cls, loaded: LoadedNetwork, warn: Callable[[str], None]) -> "Predictor":
        """One more predictor of a network that is loaded already."""
        return cls(loaded.network, loaded.precision, warn, loaded.batch_size)

    @property
    def resolution(self) -> int:
        """The side R of the square pictures that the network takes and gives, in pixels."""
        return self.network.config.resolution

    @property
    def layered(self) -> bool:
        """Whether `drive_layers` works: the network passes the source's pixels through its last gate."""
        return self.network.config.generator.skips

    @property
    def source(self) -> "Source":
        """The source that `set_source` was given. Raises InputError where there is none yet."""
        if self._source is None:
            raise InputError("no source yet: call set_source(picture) first")
        return self._source

    def set_source(self, picture: np.ndarray) -> None:
        """Take a picture as the source of all predictions from now on.

        Args:
            picture: uint8 RGB (H, W, 3). Of a picture that is not square, the largest centred square is used.
        """
        self._source = self.encode(square_frames(picture[None], self.resolution))

    def read_motion(self, driving: np.ndarray) -> Motion:
        """The motion of each driving frame, uint8 RGB (B, H, W, 3). Of each the largest centred square is read."""
        return self.estimate(square_frames(driving, self.resolution))

    def predict(self, driving: np.ndarray | Motion) -> np.ndarray:
        """The source, moved as the driving frames or their motion say.

        Args:
            driving: Frames, uint8 RGB (B, H, W, 3), of each of which the largest centred square is read; the source
                takes over their pose, and its background moves as the network predicts. Or a motion of batch B, which
                is applied as it is; the background stands still.

        Returns:
            uint8 RGB (B, R, R, 3), where R is the network's resolution.

        Raises:
            InputError: No source is set.
            MTAnimateError: The device has too little memory for a single frame.
        """
        if isinstance(driving, Motion):
            return to_frames(self.drive(self.source, driving))
        squares = square_frames(driving, self.resolution)
        background = self.predict_background(self.source, squares)
        return to_frames(self.drive(self.source, self.estimate(squares), background))

    @torch.inference_mode()
    def estimate(self, frames: Tensor) -> Motion:
        """The motion of each picture, in float32.

        Args:
            frames: uint8 RGB (B, 3, R, R), on any device.

        Returns:
            A motion of batch B on the network's device. A frame's motion is not finite only where float32 gives none.
        """
        return Motion.cat(self._in_parts(lambda part: self._estimate(frames[part]), len(frames)))

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> "Source":
        """Sources for `drive`.

        Args:
            pictures: uint8 RGB (1, 3, R, R), or (B, 3, R, R) with one picture for each frame that will be driven.
        """
        source = Source(self, pictures)
        if len(pictures) == 1:  # each of many is encoded when it is driven
            self._in_parts(source.encoded, 1)
        return source

    @torch.inference_mode()
    def predict_background(self, source: "Source", driving: Tensor) -> Tensor | None:
        """The background's movement, from each driving frame to the source.

        Args:
            driving: uint8 RGB (B, 3, R, R).

        Returns:
            Affine matrices (B, 3, 3) in normalised coordinates; None where the network predicts no background.
        """
        if self.network.config.background is None:
            return None
        return torch.cat(self._in_parts(lambda part: self._background(source, driving, part), len(driving)))

    @torch.inference_mode()
    def drive(
        self, source: "Source", motion: Motion, background: Tensor | None = None, *, lock: bool = False
    ) -> Tensor:
        """The source, moved as `motion` says.

        Args:
            motion: Batch B.
            background: From `predict_background`; None leaves the background where it is.
            lock: Keep the source's own pixels where the masks say background both in the source and in the result.

        Returns:
            float32 RGB (B, 3, R, R) in [0, 1], on the network's device. A frame that is not finite in float32 either
            shows the one before.
        """

        def work(part: slice) -> Tensor:
            driven, _, still = self._drive(source, motion, background, lock, part)
            return driven if still is None else still * source.picture(part) + (1 - still) * driven

        driven = torch.cat(self._in_parts(work, len(motion)))
        whole = driven.isfinite().flatten(1).all(dim=1)
        before = source.shown if isinstance(source.shown, Tensor) else self._image(source.pictures[:1])
        shown = self._held(torch.cat([before, driven]), whole)
        source.shown = shown[-1:].clone()
        return shown

    @torch.inference_mode()
    def drive_layers(
        self, source: "Source", motion: Motion, background: Tensor | None = None, *, lock: bool = False
    ) -> Layers:
        """As `drive`; taken apart for `SourcePixels.render`, which makes frames of the source's own size.

        Raises ValueError where `layered` is False.
        """
        if not self.layered:
            raise ValueError("this network does not pass the source's pixels through its last gate")

        def work(part: slice) -> Layers:
            driven, dense, still = self._drive(source, motion, background, lock, part)
            return take_apart(source.picture(part), driven, dense, still)

        layers = Layers.cat(self._in_parts(work, len(motion)))
        whole = (layers.prediction + layers.painted).isfinite().flatten(1).all(dim=1)
        before = source.shown if isinstance(source.shown, Layers) else at_rest(self._image(source.pictures[:1]), layers)
        shown = self._held(Layers.cat([before, layers]), whole)
        source.shown = shown[-1:].each(Tensor.clone)
        return shown

    @torch.inference_mode()
    def disentangle(self, source: Motion, driving: Motion) -> Motion:
        """The motion of the source's shape in the driver's pose, on the CPU.

        Args:
            source: Batch 1 or B.
            driving: Batch B.

        Raises:
            InputError: The network does not tell the two apart.
        """
        device = self.network.device
        return self.network.disentangle(source.to(device), driving.to(device)).to("cpu")

    def _estimate(self, frames: Tensor) -> Motion:
        with self._autocast(estimator=True):
            motion = self.network.estimate_motion(self._image(frames)).to(torch.float32)
        if self._half and not motion.is_finite().all():
            raise _HalfPrecisionFails
        return motion

    def _background(self, source: "Source", driving: Tensor, part: slice) -> Tensor:
        with self._autocast():
            background = self.network.predict_background(source.picture(part), self._image(driving[part]))
        assert background is not None
        if self._half and not background.isfinite().all():
            raise _HalfPrecisionFails
        return background.float()

    def _drive(
        self, source: "Source", motion: Motion, background: Tensor | None, lock: bool, part: slice
    ) -> tuple[Tensor, DenseMotion, Tensor | None]:
        """The pictures (B, 3, R, R), their dense motion and, with `lock`, the share of the source: (B, 1, R, R).

        A picture is all NaN where its flow is not finite.
        """
        device, encoded = self.network.device, source.encoded(part)
        behind = None if background is None else background[part].to(device)
        with self._autocast():
            rendering = self.network.render(encoded, motion[part].to(device), behind)
        # A flow that is not finite samples the picture's corner: the result is finite, and wrong.
        readable = rendering.motion.flow.isfinite().flatten(1).all(dim=1)[:, None, None, None]
        driven = torch.where(readable, rendering.prediction.float(), torch.nan)
        black = source.bright and bool((driven.amax(dim=(1, 2, 3)) < _BLACK).any())
        if self._half and (black or not driven.isfinite().all()):
            raise _HalfPrecisionFails
        if not lock:
            return driven, rendering.motion, None
        size = (driven.shape[2], driven.shape[3])
        still = resize(rendering.motion.masks[:, :1].float(), size) * source.background(encoded)
        return driven, rendering.motion, still

    def _held(self, frames: Frames, whole: Tensor) -> Frames:
        """All but the first frame. Where one is not `whole`, bool (B,), it is the one before it."""
        if whole.all():
            return frames[1:]
        if not self._held_before:
            self._held_before = True
            self.warn(f"the network gives values that are not finite, in {self.precision}: such frames show the last")
        numbers = [0]
        for number, good in enumerate(whole.tolist(), 1):
            numbers.append(number if good else numbers[-1])
        return frames[numbers[1:]]

    def _in_parts(self, work: Callable[[slice], T], count: int) -> list[T]:
        """`work` on frames 0 to `count`, as many at once as fit the device's memory.

        Raises MTAnimateError where not even one does.
        """
        results: list[T] = []
        done = 0
        while done < count:
            part = slice(done, min(done + self._at_once, count))
            size = part.stop - done
            try:
                results += side_by_side(work, part) if self._parallel else [work(part)]
                done = part.stop
                continue
            except _HalfPrecisionFails:
                self._fall_back()
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise MTAnimateError(
                        f"{self.network.device} is out of memory with one frame at a time: close what else uses it, "
                        "or give --device cpu"
                    ) from error
            # Outside of the handler, since the error keeps alive what was computed so far.
            self._at_once = size // 2
            if isinstance(self.network, CapturedNetwork):
                self.network.forget()
            self.warn(f"{self.network.device} is out of memory with {size} frames at once: going on with {size // 2}")
        return results

    def _ready(self) -> Network:
        if not isinstance(self._given, PreparedNetwork):
            return self._given
        ready = self._given.in_precision(self.precision)
        return CapturedNetwork(ready, self.warn) if ready.device.type == "cuda" else ready

    def _fall_back(self) -> None:
        self.warn(f"{self.precision} gave values that are not finite, or black frames: going on in fp32")
        self.precision = "fp32"
        self.network = self._ready()

    def _image(self, frames: Tensor) -> Tensor:
        image = frames.to(self.network.device).float() / 255
        return image.contiguous(memory_format=torch.channels_last)

    @property
    def _half(self) -> bool:
        """Whether it computes in half precision and could fall back to float32, which an exported network cannot."""
        return self.precision != "fp32" and isinstance(self._given, PreparedNetwork)

    def _autocast(self, *, estimator: bool = False) -> torch.autocast:
        return autocast(self.network.device, self.precision if self._half else "fp32", estimator=estimator)


class Source:
    """Pictures to be driven, with what is computed of them once. Made by `Predictor.encode`.

    Attributes:
        pictures: uint8 (1, 3, R, R), or (B, 3, R, R) with one for each frame.
        motion: Of the pictures themselves, float32.
        bright: Whether a black result would be an error.
        shown: The last frame that was made of them, (1, 3, R, R) or taken apart; None before the first.
    """

    def __init__(self, predictor: Predictor, pictures: Tensor) -> None:
        self.predictor = predictor
        self.pictures = pictures
        self.motion = predictor.estimate(pictures)
        self.bright = int(pictures.amax()) > 10
        self.shown: Tensor | Layers | None = None
        self._kept: tuple[Network, EncodedSource] | None = None
        self._background: tuple[EncodedSource, Tensor] | None = None

    def picture(self, part: slice) -> Tensor:
        """The one picture of all frames, or those of these frames: float32 (1 or B, 3, R, R) in [0, 1]."""
        return self.predictor._image(self.pictures if len(self.pictures) == 1 else self.pictures[part])

    def encoded(self, part: slice) -> EncodedSource:
        """The encoded picture of all frames, or those of these frames.

        One picture is kept encoded until the predictor changes its network, as it does when it falls back to float32.
        """
        network = self.predictor.network
        if len(self.pictures) > 1:
            return self._encoded_by(network, part)
        kept = self._kept
        if kept is None or kept[0] is not network:
            kept = self._kept = network, self._encoded_by(network, slice(0, 1))
        return kept[1]

    def _encoded_by(self, network: Network, part: slice) -> EncodedSource:
        with self.predictor._autocast():
            return network.encode_source(self.picture(part), self.motion[part])

    def background(self, encoded: EncodedSource) -> Tensor:
        """The share of background in each pixel of encoded pictures, by the network's own masks: (B, 1, R, R) in
        [0, 1]."""
        known = self._background
        if known is None or known[0] is not encoded:
            with self.predictor._autocast():
                dense = self.predictor.network.render(encoded, encoded.motion).motion
            size = (self.pictures.shape[2], self.pictures.shape[3])
            known = self._background = encoded, resize(dense.masks[:, :1].float(), size)
        return known[1]
