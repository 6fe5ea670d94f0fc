"""A network's kernels, captured as CUDA graphs and replayed.

A frame of the full-size network takes several hundred kernels of a few microseconds each. Launched one by one from
Python, they keep the GPU waiting.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtanimate.models.animator import Animator, EncodedSource, Rendering
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

# A function of tensors on the GPU that neither waits for it nor copies anything to it.
Function = Callable[..., tuple[Tensor, ...]]
_UNCAPTURED = 2  # the first calls of each size are not captured: a short clip has no more of them
_ONE_AT_A_TIME = threading.Lock()


class CapturedCall:
    """A function, captured for tensors of the shapes and types of `examples`.

    pool: Memory that is shared by calls which are never replayed at the same time.
    Raises RuntimeError where the function cannot be captured.
    """

    def __init__(self, function: Function, examples: Sequence[Tensor], pool: Any) -> None:
        self._inputs = [example.clone() for example in examples]
        device = self._inputs[0].device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), _ONE_AT_A_TIME:
            with torch.cuda.stream(aside):  # libraries set themselves up at the first call, which cannot be captured
                function(*self._inputs)
            aside.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # thread_local, since other threads go on using the GPU meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


class CapturedNetwork:
    """An `Animator` on a CUDA GPU, whose estimation and driving are captured and replayed.

    Args:
        animator: Prepared for inference, and always called under the same autocast.
        warn: Gets a line where capturing fails. From then on, kernels are launched one by one.
    """

    def __init__(self, animator: Animator, warn: Callable[[str], None]) -> None:
        self.config = animator.config
        self.animator, self._warn = animator, warn
        self._captured: dict[tuple, CapturedCall] = {}
        self._calls: Counter[tuple] = Counter()
        self._capturable = True
        self._pool: Any = None

    @property
    def device(self) -> torch.device:
        return self.animator.device

    def estimate_motion(self, frames: Tensor) -> Motion:
        """The motion of each picture."""

        def estimate(frames: Tensor) -> tuple[Tensor, ...]:
            motion = self.animator.estimate_motion(frames)
            return motion.keypoints, motion.affine

        return self._motion(*self._replay(estimate, frames))

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """As `Animator.encode_source`; not captured, since it is called once for each picture."""
        return self.animator.encode_source(picture, motion)

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """As `Animator.predict_background`."""
        return self.animator.predict_background(source, driving)

    def disentangle(self, source: Motion, driving: Motion) -> Motion:
        """As `Animator.disentangle`."""
        return self.animator.disentangle(source, driving)

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering:
        """As `Animator.render`. The source's tensors are inputs of the graph, so that it serves any source."""

        def render(*given: Tensor) -> tuple[Tensor, ...]:
            picture, reduced, *rest, keypoints, affine = given
            behind = rest.pop() if background is not None else None
            encoded = EncodedSource(picture, reduced, rest[2:], self._motion(rest[0], rest[1]))
            rendering = self.animator.render(encoded, self._motion(keypoints, affine), behind)
            dense = rendering.motion
            occlusion = () if dense.occlusion is None else (dense.occlusion,)
            return rendering.prediction, dense.masks, dense.flow, *occlusion

        given = [source.picture, source.reduced, source.motion.keypoints, source.motion.affine, *source.features]
        given += [] if background is None else [background]
        prediction, masks, flow, *occlusion = self._replay(render, *given, motion.keypoints, motion.affine)
        config = self.config.dense_motion
        shown = occlusion[0] if occlusion else None
        dense = DenseMotion(masks, flow, shown, config.exact_sampling, padding=config.padding)
        return Rendering(prediction, dense)

    def forget(self) -> None:
        """Free the memory of all captured calls."""
        self._captured.clear()
        self._calls.clear()
        self._pool = None

    def _motion(self, keypoints: Tensor, affine: Tensor) -> Motion:
        return Motion(keypoints, affine, self.config.estimator.motion_kind)

    def _replay(self, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        key = (function.__name__, *((tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._captured:
            self._calls[key] += 1
            if not self._capturable or self._calls[key] <= _UNCAPTURED:
                return function(*inputs)
            try:
                self._captured[key] = self._capture(function, inputs)
            except RuntimeError as error:  # what PyTorch raises for refusals by the GPU, its driver or its memory
                self._capturable = False
                self._warn(
                    f"CUDA graphs are not available ({' '.join(str(error).split())[:150]}): going on without them"
                )
                return function(*inputs)
        return self._captured[key](*inputs)

    def _capture(self, function: Function, inputs: Sequence[Tensor]) -> CapturedCall:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CapturedCall(function, inputs, self._pool)
