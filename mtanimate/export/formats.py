"""Programs -> the files of a format. What is not installed is an InputError that names the extra."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram

from mtanimate.backends.graphs import Graph
from mtanimate.backends.runtimes import openvino_core
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.export.programs import quiet

if TYPE_CHECKING:
    import onnx

OPSET = 20  # the first whose GridSample is what OpenVINO, too, takes; 16 to 19 call its modes otherwise
PRECISIONS = {"torch": ("fp32",), "onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "int8")}
_HALF = {"Conv", "MatMul", "Gemm"}  # coordinates, sampling and softmax stay float32


def check_format(backend: str, precision: str) -> None:
    """Raises InputError where the format has no such precision, or what writes it is not installed."""
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
    """As PyTorch keeps them: `torch.export.load` reads them without this package."""
    for name, program in programs.items():
        whole = io.BytesIO()  # where a disk is full, PyTorch's own writer ends the process
        torch.export.save(program, whole)
        with _writing(folder / f"{name}.pt2") as file:
            file.write_bytes(whole.getbuffer())


def save_models(models: "dict[str, onnx.ModelProto]", format: str, half: bool, folder: Path) -> None:
    """ONNX files, or OpenVINO's IR made of them. half: convolutions and matrix products in float16 (onnx), or weights
    kept as float16 and computed in float32 (openvino)."""
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


def to_onnx(program: ExportedProgram, graph: Graph) -> "onnx.ModelProto":
    """Standard operators alone, names as `graph` has them."""
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


def _without_notes(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model without what the exporter noted of it: this machine's files, and names of our modules."""
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
    del half.model.graph.value_info[:]  # types as they were
    return half.model


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """What libraries raise where a disk is full, as our error."""
    try:
        yield file
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise MTAnimateError(f"{file.name} could not be written ({reason}): is the disk full?") from error
