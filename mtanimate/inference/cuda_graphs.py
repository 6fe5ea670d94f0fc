"""On an NVIDIA GPU: a network's kernels are recorded once, as CUDA graphs, and played back.

A frame of the full-size network is several hundred kernels; launched one by one from Python, a GPU that is done with
each in microseconds waits for the next.
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

# A function of tensors that neither waits for the GPU nor brings anything to it.
Function = Callable[..., tuple[Tensor, ...]]
_AT_ONCE = 2  # calls of one size that are not worth a recording: a short clip has no more
_ONE_AT_A_TIME = threading.Lock()


class CapturedCall:
    """What `function` does with tensors of the shapes and types of `examples`.

    pool: memory that recordings share which are not played at the same time.
    Raises RuntimeError where it cannot be recorded.
    """

    def __init__(self, function: Function, examples: Sequence[Tensor], pool: Any) -> None:
        self._inputs = [example.clone() for example in examples]
        device = self._inputs[0].device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), _ONE_AT_A_TIME:
            with torch.cuda.stream(aside):  # what libraries set up at their first call cannot be recorded
                function(*self._inputs)
            aside.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # thread_local: other threads go on using the GPU meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


class CapturedNetwork:
    """An `Animator` on a CUDA GPU, its estimation and its driving played back: the methods that animating needs.

    animator: ready for inference; always called under the same autocast. warn: gets a line where recording fails;
    then it is as it would be without.
    """

    def __init__(self, animator: Animator, warn: Callable[[str], None]) -> None:
        self.config = animator.config
        self.animator, self._warn = animator, warn
        self._recordings: dict[tuple, CapturedCall] = {}
        self._calls: Counter[tuple] = Counter()
        self._recordable = True
        self._pool: Any = None

    @property
    def device(self) -> torch.device:
        return self.animator.device

    def estimate_motion(self, frames: Tensor) -> Motion:
        """The motion of each picture."""

        def estimate(frames: Tensor) -> tuple[Tensor, ...]:
            motion = self.animator.estimate_motion(frames)
            return motion.keypoints, motion.affine

        return self._motion(*self._play(estimate, frames))

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """As `Animator.encode_source`: once for a picture."""
        return self.animator.encode_source(picture, motion)

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """As `Animator.predict_background`."""
        return self.animator.predict_background(source, driving)

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering:
        """As `Animator.render`. The source's tensors are copied into the recording's own, which another may follow."""

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
        prediction, masks, flow, *occlusion = self._play(render, *given, motion.keypoints, motion.affine)
        exact = self.config.dense_motion.exact_sampling
        return Rendering(prediction, DenseMotion(masks, flow, occlusion[0] if occlusion else None, exact))

    def forget(self) -> None:
        """Frees the memory of what was recorded."""
        self._recordings.clear()
        self._calls.clear()
        self._pool = None

    def _motion(self, keypoints: Tensor, affine: Tensor) -> Motion:
        return Motion(keypoints, affine, self.config.estimator.motion_kind)

    def _play(self, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        key = (function.__name__, *((tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._recordings:
            self._calls[key] += 1
            if not self._recordable or self._calls[key] <= _AT_ONCE:
                return function(*inputs)
            try:
                self._recordings[key] = self._record(function, inputs)
            except RuntimeError as error:  # PyTorch's for whatever a GPU, its driver or its memory refuses
                self._recordable = False
                self._warn(f"CUDA graphs are not to be had ({' '.join(str(error).split())[:150]}): going on without")
                return function(*inputs)
        return self._recordings[key](*inputs)

    def _record(self, function: Function, inputs: Sequence[Tensor]) -> CapturedCall:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CapturedCall(function, inputs, self._pool)
