"""Runs exported networks by ONNX Runtime, OpenVINO or `torch.export`.

Each runtime is a function from tensors by name to tensors by name, in float32 on the CPU.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mtanimate.config import ModelConfig
from mtanimate.devices import out_of_memory
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.inference.manifest import Graph, feature_names, graphs_of, read_verified
from mtanimate.models.animator import EncodedSource, Rendering, check_disentangles
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def open_graph(backend: str, folder: Path, graph: Graph, files: Mapping[str, str], *, bf16: bool = False) -> Run:
    """A graph, ready to run on as many threads as PyTorch uses.

    The backend torch runs the program in the file, which can do anything on this machine.

    Args:
        backend: torch, onnx or openvino.
        folder: Where the graph's files are.
        files: SHA-256 by file name.
        bf16: Let OpenVINO compute in bfloat16.

    Raises:
        InputError: The runtime is not installed (the message names the extra), or a file's SHA-256 differs.
        MTAnimateError: The runtime cannot load the graph. The function raises it where the graph cannot be run.
    """
    names = graph.files(backend)
    file = folder / names[0]
    contents = [read_verified(folder / name, files[name]) for name in names]
    with _runtime_errors(file, f"cannot be loaded by {backend}"):
        run = _opened(backend, contents, file, graph, bf16)

    def checked(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with _runtime_errors(file, f"cannot be run by {backend}"):
            return run(given)

    return checked


def _opened(backend: str, contents: list[bytes], file: Path, graph: Graph, bf16: bool) -> Run:
    if backend == "onnx":
        return _onnx(contents[0], file, graph)
    if backend == "openvino":
        return _openvino(contents[0], contents[1], file, graph, bf16)
    return program_run(torch.export.load(BytesIO(contents[0])), graph)


@contextmanager
def _runtime_errors(file: Path, what: str) -> Iterator[None]:
    """Turns a runtime's errors into an MTAnimateError that names the file and `what` failed. Where memory is short, its
    own error is raised: fewer frames at once may fit."""
    try:
        yield
    except (MTAnimateError, MemoryError):
        raise
    except Exception as error:  # runtimes raise whatever their own errors are
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        raise MTAnimateError(f"{file} {what} ({' '.join(str(error).split())[:200]})") from error


def missing(backend: str) -> InputError:
    return InputError(f"--backend {backend} needs a package that is not installed: pip install 'mtanimate[{backend}]'")


def _onnx(content: bytes, file: Path, graph: Graph) -> Run:
    # ONNX names another file that holds a tensor under this key. Such a file would not have been checked.
    if b"location" in content:
        raise InputError(f"{file} keeps weights in another file, which an export never does: export it again")
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.load_model_format", "ONNX")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = session.run(graph.outputs, {name: given[name].contiguous().numpy() for name in graph.inputs})
        return {name: torch.from_numpy(array) for name, array in zip(graph.outputs, arrays, strict=True)}

    return run


@lru_cache
def openvino_core() -> Any:
    """One OpenVINO core for the whole process.

    Each `Core` sets the stack on which signals are handled, and restores the stack before it when it is deleted. With
    two cores, deleted in the order in which they were made, the restored stack is freed memory: Ctrl-C would crash.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino") from error
    return openvino.Core()


def _openvino(content: bytes, weights: bytes, file: Path, graph: Graph, bf16: bool) -> Run:
    """Compiles the graph for each number of frames.

    With a dynamic number of frames, OpenVINO 2026.4 gives wrong values for some graphs in int8. A batch that is smaller
    than one that was compiled is padded.
    """
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
    }
    if not content.startswith(b"<?xml"):  # OpenVINO takes other formats too, which read files of their own
        raise InputError(f"{file} is not OpenVINO's XML: export it again")
    model = openvino_core().read_model(content, weights)
    # OpenVINO drops the inputs that a graph does not use, and refuses to be given them.
    ports = {name: port for port in model.inputs for name in graph.inputs if name in port.get_names()}
    shapes = {name: port.get_partial_shape() for name, port in ports.items()}
    free = [name for name, shape in shapes.items() if shape[0].is_dynamic]
    if not free:
        raise InputError(f"{file} has none of its network's inputs: export it again")
    requests: dict[int, Any] = {}
    lock = Lock()  # a request serves one caller at a time

    def request(frames: int) -> Any:
        if frames not in requests:
            for name in free:
                shapes[name][0] = frames
            model.reshape({name: shapes[name] for name in free})
            compiled = openvino_core().compile_model(model, "CPU", settings)
            requests[frames] = compiled.create_infer_request()
        return requests[frames]

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with lock:
            frames = len(given[free[0]])
            size = min((size for size in requests if size >= frames), default=frames)
            taken = {name: _padded(given[name], size if name in free else 1) for name in ports}
            arrays = {name: tensor.contiguous().numpy() for name, tensor in taken.items()}
            results = request(size).infer(arrays, share_inputs=True)  # no copy of the source's features
            return {name: torch.from_numpy(results[name])[:frames] for name in graph.outputs}

    return run


def _padded(batch: Tensor, size: int) -> Tensor:
    """(B, ...) -> (size, ...), padded with copies of the first."""
    if len(batch) == size:
        return batch
    return torch.cat([batch, batch[:1].expand(size - len(batch), *batch.shape[1:])])


def program_run(program: ExportedProgram, graph: Graph) -> Run:
    """A graph that is run by PyTorch."""
    module = program.module()

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        results = module(*(given[name] for name in graph.inputs))
        return dict(zip(graph.outputs, (results,) if isinstance(results, Tensor) else results, strict=True))

    return run


class ExportedNetwork:
    """The graphs of an exported folder, with the methods of `Animator` that animating needs.

    Pictures are float32 RGB (B, 3, R, R) in [0, 1], where R is the configured resolution. Every method raises
    MTAnimateError where a graph fails or has given nothing finite yet.

    Args:
        folder: Written by `mtanimate export`.
        backend: torch, onnx or openvino. The backend torch runs the programs in the files, whatever they are.
        config: Of the network.
        files: SHA-256 by file name. Each file is checked before a runtime sees it.
        bf16: Let OpenVINO compute in bfloat16.

    Raises:
        InputError: The runtime is not installed, or a file's SHA-256 differs.
        MTAnimateError: The runtime cannot load a graph.
    """

    device = torch.device("cpu")

    def __init__(
        self, folder: Path, backend: str, config: ModelConfig, files: Mapping[str, str], *, bf16: bool = False
    ) -> None:
        self.config = config
        self._graphs: dict[str, Run] = {}
        for graph in graphs_of(config):
            run = open_graph(backend, folder, graph, files, bf16=bf16)
            self._graphs[graph.name] = _checked(run, folder / graph.files(backend)[0], _shapes(config))

    def estimate_motion(self, frames: Tensor) -> Motion:
        """The motion of each picture."""
        return self._motion(self._graphs["estimate"]({"frames": frames}))

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """Everything that is computed of a source once. motion: Of the picture, where it is known already."""
        encoded = self._graphs["encode"]({"source": picture})
        features = [encoded[name] for name in feature_names(self.config)]
        return EncodedSource(picture, encoded["reduced"], features, motion or self._motion(encoded))

    def drive(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Tensor:
        """The source (batch 1 or B) moved as `motion` (batch B) says: (B, 3, R, R) in [0, 1]."""
        return self.render(source, motion, background).prediction

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering:
        """As `drive`, with masks, flow and occlusion."""
        if len(source.picture) > 1:  # the graphs drive one source
            each = [slice(index, index + 1) for index in range(len(motion))]
            backgrounds = [None if background is None else background[one] for one in each]
            pairs = zip(each, backgrounds, strict=True)
            return _cat([self.render(_part(source, one), motion[one], behind) for one, behind in pairs])
        driven = self._graphs["drive"](drive_inputs(self.config, source, motion, background))
        config, occlusion = self.config.dense_motion, driven.get("occlusion")
        dense = DenseMotion(driven["masks"], driven["flow"], occlusion, config.exact_sampling, padding=config.padding)
        return Rendering(driven["prediction"], dense)

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """(B, 3, 3) where the network has a background predictor, else None. source: batch 1 or B."""
        if "background" not in self._graphs:
            return None
        predict = self._graphs["background"]
        if len(source) == 1:
            return predict({"source": source, "driving": driving})["background"]
        pairs = zip(source.split(1), driving.split(1), strict=True)
        return torch.cat([predict({"source": one, "driving": other})["background"] for one, other in pairs])

    def disentangle(self, source: Motion, driving: Motion) -> Motion:
        """As `Animator.disentangle`. source: batch 1 or B."""
        check_disentangles(self.config)
        run = self._graphs["disentangle"]
        sources = source.keypoints.expand_as(driving.keypoints)
        given = {"source_keypoints": sources, "driving_keypoints": driving.keypoints}
        return replace(driving, keypoints=run(given)["keypoints"])

    def _motion(self, given: dict[str, Tensor]) -> Motion:
        return Motion(given["keypoints"], given["affine"], self.config.estimator.motion_kind)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a graph's outputs, for each frame."""
    parts, side = config.num_keypoints, config.resolution
    return {"keypoints": (parts, 2), "affine": (parts, 2, 2), "prediction": (3, side, side), "background": (3, 3)}


def _checked(run: Run, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Run:
    """The same, with checks.

    Raises MTAnimateError, which names the graph's file, where it gives other shapes, or has not given a finite frame
    yet. Later, frames that are not finite are passed on: the predictor holds the frame before.
    """
    good = False

    def checked(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        nonlocal good
        found = run(given)
        frames = max(map(len, given.values()))
        for name, each in found.items():
            if each.ndim < 2 or (name in shapes and each.shape != (frames, *shapes[name])):
                raise MTAnimateError(f"{file} gives {name} of the shape {tuple(each.shape)}: export it again")
        good = good or all(bool(each.isfinite().flatten(1).all(dim=1).any()) for each in found.values())
        if not good:
            names = [name for name, each in found.items() if not each.isfinite().all()]
            raise MTAnimateError(
                f"{file} gives {' and '.join(names)} that are not finite: export it again, or in another precision"
            )
        return found

    return checked


def drive_inputs(
    config: ModelConfig, source: EncodedSource, motion: Motion, background: Tensor | None = None
) -> dict[str, Tensor]:
    """The inputs of the graph `drive`; picture and background are there even where it takes none. source: batch 1."""
    names = feature_names(config)
    if background is None:  # it stands still
        background = torch.eye(3).repeat(len(motion), 1, 1)
    given = {"source": source.picture, "reduced": source.reduced, "background": background}
    given |= dict(zip(names, source.features[-len(names) :], strict=True))
    given |= {"source_keypoints": source.motion.keypoints, "source_affine": source.motion.affine}
    return given | {"driving_keypoints": motion.keypoints, "driving_affine": motion.affine}


def _part(source: EncodedSource, part: slice) -> EncodedSource:
    features = [feature[part] for feature in source.features]
    return EncodedSource(source.picture[part], source.reduced[part], features, source.motion[part])


def _cat(renderings: list[Rendering]) -> Rendering:
    motions = [rendering.motion for rendering in renderings]
    occlusions = [motion.occlusion for motion in motions if motion.occlusion is not None]
    masks, flow = torch.cat([motion.masks for motion in motions]), torch.cat([motion.flow for motion in motions])
    occlusion = torch.cat(occlusions) if occlusions else None
    dense = DenseMotion(masks, flow, occlusion, motions[0].exact, padding=motions[0].padding)
    return Rendering(torch.cat([rendering.prediction for rendering in renderings]), dense)
