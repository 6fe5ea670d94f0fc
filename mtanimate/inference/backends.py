"""What runs a graph: each runtime as a function from tensors by name to tensors by name, float32 on the CPU.

A runtime that is not installed is an InputError that names the extra.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from mtanimate.inference.manifest import Graph, feature_names, graphs_of, proven
from mtanimate.models.animator import EncodedSource, Rendering
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def open_graph(backend: str, folder: Path, graph: Graph, files: Mapping[str, str], *, bf16: bool = False) -> Run:
    """The graph, ready to run on as many threads as PyTorch uses. The backend torch runs what stands in its file.

    files: SHA-256 by name. bf16: let OpenVINO compute in bfloat16. Raises InputError where the runtime is not installed
    or a file is not what `files` says, MTAnimateError where the runtime does not take it, or cannot run it.
    """
    names = graph.files(backend)
    file = folder / names[0]
    contents = [proven(folder / name, files[name]) for name in names]
    with _said_of(file, f"{backend} cannot load"):
        run = _opened(backend, contents, file, graph, bf16)

    def checked(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with _said_of(file, f"{backend} cannot run"):
            return run(given)

    return checked


def _opened(backend: str, contents: list[bytes], file: Path, graph: Graph, bf16: bool) -> Run:
    if backend == "onnx":
        return _onnx(contents[0], file, graph)
    if backend == "openvino":
        return _openvino(contents[0], contents[1], file, graph, bf16)
    return program_run(torch.export.load(BytesIO(contents[0])), graph)


@contextmanager
def _said_of(file: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (MTAnimateError, MemoryError):
        raise
    except Exception as error:  # runtimes raise whatever their own errors are
        raise MTAnimateError(f"{what} {file} ({' '.join(str(error).split())[:200]})") from error


def missing(backend: str) -> InputError:
    return InputError(f"--backend {backend} needs a package that is not installed: pip install 'mtanimate[{backend}]'")


def _onnx(content: bytes, file: Path, graph: Graph) -> Run:
    # A tensor that lies in another file, which nobody has checked, names it under this key.
    if b"location" in content:
        raise InputError(f"{file} keeps weights outside of itself, and an export never does: export it again")
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
    """OpenVINO, once for the whole process.

    Each `Core` sets the stack that signals are handled on, and puts back the one before when it goes. Where one goes
    before another that came later, that other's end leaves a stack that is freed: Ctrl-C would end in a crash.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino") from error
    return openvino.Core()


def _openvino(content: bytes, weights: bytes, file: Path, graph: Graph, bf16: bool) -> Run:
    """Compiled for each number of frames it meets: where that is left free, OpenVINO 2026.4 gives wrong values for some
    graphs in int8. Fewer frames than were compiled for are filled up, not compiled anew."""
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
    }
    if not content.startswith(b"<?xml"):  # OpenVINO takes other formats too, which read files of their own
        raise InputError(f"{file} is not OpenVINO's XML: export it again")
    model = openvino_core().read_model(content, weights)
    # What is never looked at is dropped, and must not be given.
    ports = {name: port for port in model.inputs for name in graph.inputs if name in port.get_names()}
    shapes = {name: port.get_partial_shape() for name, port in ports.items()}
    free = [name for name, shape in shapes.items() if shape[0].is_dynamic]
    if not free:
        raise InputError(f"{file} takes nothing that its network gives: export it again")
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
            taken = {name: _filled(given[name], size if name in free else 1) for name in ports}
            arrays = {name: tensor.contiguous().numpy() for name, tensor in taken.items()}
            results = request(size).infer(arrays, share_inputs=True)  # a source's features are not copied every time
            return {name: torch.from_numpy(results[name])[:frames] for name in graph.outputs}

    return run


def _filled(batch: Tensor, size: int) -> Tensor:
    """(B, ...) -> (size, ...): the first once more, as often as it takes."""
    if len(batch) == size:
        return batch
    return torch.cat([batch, batch[:1].expand(size - len(batch), *batch.shape[1:])])


def program_run(program: ExportedProgram, graph: Graph) -> Run:
    module = program.module()

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        results = module(*(given[name] for name in graph.inputs))
        return dict(zip(graph.outputs, (results,) if isinstance(results, Tensor) else results, strict=True))

    return run


class ExportedNetwork:
    """The graphs of an exported folder. Pictures are (B, 3, R, R) float RGB in [0, 1], R the configured resolution.

    files: SHA-256 by name, which every file is checked against before a runtime sees it. The backend torch runs what
    stands in them, whatever that is. device: where tensors come from and go to: the CPU.
    Raises InputError where the runtime is not installed or a file is not what `files` says, MTAnimateError where the
    runtime does not take one; so does every method where a graph fails, or gives nothing that is finite.
    """

    device = torch.device("cpu")

    def __init__(
        self, folder: Path, backend: str, config: ModelConfig, files: Mapping[str, str], *, bf16: bool = False
    ) -> None:
        """bf16: let OpenVINO compute in bfloat16."""
        self.config = config
        self._graphs: dict[str, Run] = {}
        for graph in graphs_of(config):
            run = open_graph(backend, folder, graph, files, bf16=bf16)
            self._graphs[graph.name] = _watched(run, folder / graph.files(backend)[0], _shapes(config))

    def estimate_motion(self, frames: Tensor) -> Motion:
        """The motion of each picture."""
        return self._motion(self._graphs["estimate"]({"frames": frames}))

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """Everything that the source gives once and for all; `motion` where it is known already."""
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
        exact = self.config.dense_motion.exact_sampling
        dense = DenseMotion(driven["masks"], driven["flow"], driven.get("occlusion"), exact)
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

    def _motion(self, given: dict[str, Tensor]) -> Motion:
        return Motion(given["keypoints"], given["affine"], self.config.estimator.motion_kind)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of what the graphs give, for each frame."""
    parts, side = config.num_keypoints, config.resolution
    return {"keypoints": (parts, 2), "affine": (parts, 2, 2), "prediction": (3, side, side), "background": (3, 3)}


def _watched(run: Run, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Run:
    """The same. Raises MTAnimateError, naming the graph's file, where it fails, gives other shapes, or has never given
    anything finite yet: single frames that are not finite are held by whoever asked for them."""
    good = False

    def watched(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        nonlocal good
        try:
            found = run(given)
        except (MTAnimateError, MemoryError):
            raise
        except Exception as error:  # runtimes raise whatever their own errors are
            if isinstance(error, RuntimeError) and out_of_memory(error):  # fewer frames at once may fit
                raise
            raise MTAnimateError(f"{file} cannot be run ({' '.join(str(error).split())[:200]})") from error
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

    return watched


def drive_inputs(
    config: ModelConfig, source: EncodedSource, motion: Motion, background: Tensor | None = None
) -> dict[str, Tensor]:
    """What the graph `drive` takes, and the picture and the background where it takes none. source: batch 1."""
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
    dense = DenseMotion(masks, flow, torch.cat(occlusions) if occlusions else None, motions[0].exact)
    return Rendering(torch.cat([rendering.prediction for rendering in renderings]), dense)
