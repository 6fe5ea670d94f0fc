"""Programs: one for each graph of a network, traced by `torch.export`, converted to ONNX, and saved."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.inference.backends import drive_inputs, openvino_core
from mtanimate.inference.manifest import Graph, feature_names
from mtanimate.models.animator import Animator
from mtanimate.models.motion import Motion

if TYPE_CHECKING:
    import onnx

_BATCH = 2  # of the traced example; 1 would become a constant
OPSET = 20  # the first whose GridSample OpenVINO reads; 16 to 19 name its modes differently
PRECISIONS = {"torch": ("fp32",), "onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "int8")}
_HALF = {"Conv", "MatMul", "Gemm"}  # coordinates, sampling and softmax stay float32


@dataclass(frozen=True)
class Traced:
    """A graph of ATen operators with a variable batch size.

    Attributes:
        program: the graph.
        shapes: of inputs and outputs, "batch" for the batch size.
    """

    program: ExportedProgram
    shapes: dict[str, dict[str, list[int | str]]]


@torch.no_grad()
def trace(animator: Animator, graph: Graph) -> Traced:
    """Traces one graph of a network.

    Args:
        animator: the network.
        graph: which one.

    Raises:
        MTAnimateError: it cannot be traced.
    """
    module = _module(animator, graph).eval()
    examples = _examples(animator, graph)
    batch = Dim("batch", min=1)
    shapes = [{0: batch} if len(example) == _BATCH else None for example in examples]
    # A module that takes `*inputs` has one argument: a tuple.
    shaped = (tuple(shapes),) if graph.name == "drive" else tuple(shapes)
    outputs = module(*examples)  # fills the caches, which must not hold the tracer's fake tensors
    try:
        with quiet():
            program = torch.export.export(module, tuple(examples), dynamic_shapes=shaped)
    except Exception as error:  # PyTorch's tracers raise errors of any type
        reason = " ".join(str(error).split())[:200]
        raise MTAnimateError(f"the graph '{graph.name}' of this network cannot be exported: {reason}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # this machine's files and lines
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    return Traced(program, {"inputs": _shapes(graph.inputs, examples), "outputs": _shapes(graph.outputs, given)})


def to_onnx(program: ExportedProgram, graph: Graph) -> "onnx.ModelProto":
    """Converts a program to ONNX, with standard operators and the names of `graph`."""
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=graph.inputs,
            output_names=graph.outputs,
        )
    assert exported is not None
    return exported.model_proto


def check_format(backend: str, precision: str) -> None:
    """Checks format and precision.

    Raises:
        InputError: the format does not have the precision, or the packages that write it are not installed.
    """
    if precision not in PRECISIONS[backend]:
        raise InputError(f"--precision {precision}: --format {backend} has {', '.join(PRECISIONS[backend])}")
    if backend == "torch":
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

        if backend == "openvino":
            import openvino  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--format {backend} needs {error.name}, which is not installed: pip install 'mtanimate[{backend}]'"
        ) from error


def save_programs(programs: dict[str, ExportedProgram], folder: Path) -> None:
    """Saves programs in PyTorch's format: `torch.export.load` reads them without this package.

    Raises:
        MTAnimateError: writing failed.
    """
    for name, program in programs.items():
        whole = io.BytesIO()  # PyTorch's own writer ends the process where a disk is full
        torch.export.save(program, whole)
        with _writing(folder / f"{name}.pt2") as file:
            file.write_bytes(whole.getbuffer())


def save_models(models: "dict[str, onnx.ModelProto]", format: str, half: bool, folder: Path) -> None:
    """Saves ONNX files, or OpenVINO IR made of them.

    Args:
        models: ONNX models by the graph's name.
        format: onnx or openvino.
        half: onnx: convolutions and matrix products in float16; openvino: weights stored as float16, computed in
            float32.
        folder: to write to.

    Raises:
        MTAnimateError: writing failed.
    """
    import onnx

    for name, model in models.items():
        kept = _without_notes(_halved(model) if half and format == "onnx" else model)
        with _writing(folder / f"{name}.{'onnx' if format == 'onnx' else 'xml'}") as file:
            if format == "onnx":
                onnx.save(kept, file)
            else:
                import openvino

                converted = openvino_core().read_model(kept.SerializeToString())
                openvino.save_model(converted, file, compress_to_fp16=half)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences PyTorch's exporters, which write warnings, logs and whole graphs for their developers."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _Encode(nn.Module):
    def __init__(self, animator: Animator) -> None:
        super().__init__()
        self.animator = animator

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        encoded = self.animator.encode_source(source)
        features = encoded.features[-len(feature_names(self.animator.config)) :]
        # Cloned: without a reduction an output would be an input, which not every runtime allows.
        return (encoded.reduced.clone(), *features, encoded.motion.keypoints, encoded.motion.affine)


class _Estimate(nn.Module):
    def __init__(self, animator: Animator) -> None:
        super().__init__()
        self.estimator = animator.motion_estimator

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        motion = self.estimator(frames)
        return motion.keypoints, motion.affine


class _Drive(nn.Module):
    """Takes inputs in the order of `Graph.inputs`."""

    def __init__(self, animator: Animator, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.kind = animator.config.estimator.motion_kind
        self.dense_motion, self.generator = animator.dense_motion, animator.generator

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.graph.inputs, inputs, strict=True))
        motions = [
            Motion(given[f"{whose}_keypoints"], given[f"{whose}_affine"], self.kind) for whose in ("source", "driving")
        ]
        batch = given["driving_keypoints"].shape[0]
        features = [given[name].expand(batch, -1, -1, -1) for name in self.graph.inputs if name.startswith("features")]
        picture = given.get("source", given["reduced"]).expand(batch, -1, -1, -1)
        if not self.generator.skips:  # only the number of the other features matters
            features *= len(self.generator.up_blocks) + 1
        dense = self.dense_motion(given["reduced"], *motions, given.get("background"))
        prediction = self.generator.decode(features, picture, dense)
        occlusion = () if dense.occlusion is None else (dense.occlusion,)
        return prediction, dense.masks, dense.flow, *occlusion


class _Background(nn.Module):
    def __init__(self, animator: Animator) -> None:
        super().__init__()
        self.predictor = animator.background_predictor

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        assert self.predictor is not None
        return self.predictor(source.expand(driving.shape[0], -1, -1, -1), driving)


class _Disentangle(nn.Module):
    def __init__(self, animator: Animator) -> None:
        super().__init__()
        self.network = animator.motion_estimator.get_submodule("disentanglement")

    def forward(self, source_keypoints: Tensor, driving_keypoints: Tensor) -> Tensor:
        return self.network(source_keypoints, driving_keypoints)


def _shapes(names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, list[int | str]]:
    shapes = zip(names, tensors, strict=True)
    return {name: ["batch" if len(tensor) == _BATCH else 1, *tensor.shape[1:]] for name, tensor in shapes}


def _module(animator: Animator, graph: Graph) -> nn.Module:
    if graph.name == "drive":
        return _Drive(animator, graph)
    modules = {
        "encode": _Encode,
        "estimate": _Estimate,
        "background": _Background,
        "disentangle": _Disentangle,
    }
    return modules[graph.name](animator)


def _examples(animator: Animator, graph: Graph) -> list[Tensor]:
    side = animator.config.resolution
    picture = torch.linspace(0, 1, side * side * 3).view(1, 3, side, side)
    frames = picture.repeat(_BATCH, 1, 1, 1)
    if graph.name == "background":
        return [picture, frames]
    if graph.name == "disentangle":
        keypoints = animator.estimate_motion(frames).keypoints
        return [keypoints, keypoints.clone()]
    if graph.name != "drive":
        return [frames]
    given = drive_inputs(animator.config, animator.encode_source(picture), animator.estimate_motion(frames))
    return [given[name].clone() for name in graph.inputs]  # inputs that share a tensor would be merged


def _without_notes(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Removes the exporter's notes from a model: file names of this machine, and names of our modules."""
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:]
    return model


def _halved(model: "onnx.ModelProto") -> "onnx.ModelProto":
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    others = [node.name for node in model.graph.node if node.op_type not in _HALF]
    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=others))
    half.topological_sort()
    del half.model.graph.value_info[:]  # notes of the former types
    return half.model


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """Turns the errors of libraries where a disk is full into ours."""
    try:
        yield file
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise MTAnimateError(f"{file.name} could not be written ({reason}): is the disk full?") from error
