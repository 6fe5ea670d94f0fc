"""float32 -> int8 after training: ranges from calibration frames, and what suffers most stays in float32."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtanimate.backends.exported import Exported, drive_inputs
from mtanimate.export.comparison import DECIBELS, decibels, drive
from mtanimate.export.formats import save_models
from mtanimate.models.animator import Animator

if TYPE_CHECKING:
    import onnx

# What is done for every frame. The source is encoded once, and the background's motion is coordinates.
QUANTISED = ("estimate", "drive")
WANTED = DECIBELS["int8"] + 2  # frames that were not measured may lose more
_WORK = ("Conv", "MatMul", "Gemm", "Relu")  # Relu: a convolution's values are rounded after it, and it is gone
_SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node comes from, outermost first, in the exporter's notes


@torch.inference_mode()
def quantised(
    animator: Animator, models: "dict[str, onnx.ModelProto]", groups: Sequence[Tensor], progress: Callable[[str], None]
) -> "tuple[dict[str, onnx.ModelProto], list[str], list[str]]":
    """The models with what can be in int8; the names of the parts that are, and of those that had to stay in float32.

    models: by the graph's name, as the exporter left them, with its notes. groups: pictures (N, 3, R, R) that belong
    together. Every other frame gives the ranges, those between show what is lost.
    """
    progress("finding the ranges of values")
    inputs = [_calibration(animator, group[::2]) for group in groups]
    quantisers = {
        name: Quantiser(models[name], (each for group in inputs for each in group[name])) for name in QUANTISED
    }
    parts = [part for quantiser in quantisers.values() for part in quantiser.parts]
    few = -(-8 // len(groups))  # of a group are enough to see what is lost
    pairs = [(group[:1], group[1::2][:few]) for group in groups]
    wanted = torch.cat([drive(animator, *pair)[0].prediction for pair in pairs])

    def build(chosen: list[str]) -> "dict[str, onnx.ModelProto]":
        return models | {
            name: quantiser.quantise([part for part in chosen if part in quantiser.parts])
            for name, quantiser in quantisers.items()
        }

    def psnr(chosen: list[str]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            save_models(build(chosen), "onnx", False, Path(folder))
            exported = Exported(Path(folder), "onnx", animator.config)
            found = decibels(wanted, torch.cat([drive(exported, *pair)[0].prediction for pair in pairs]))
        progress(f"int8 in {', '.join(chosen)}: {found:.1f} dB")
        return found

    chosen = choose_parts(parts, psnr, WANTED)
    return build(chosen), chosen, [part for part in parts if part not in chosen]


def _calibration(animator: Animator, frames: Tensor) -> dict[str, list[dict[str, Tensor]]]:
    """What the graphs get when the first of these frames is driven by each."""
    source = animator.encode_source(frames[:1])
    singles = frames.split(1)
    driving = [
        drive_inputs(
            animator.config, source, animator.estimate_motion(single), animator.predict_background(frames[:1], single)
        )
        for single in singles
    ]
    return {"estimate": [{"frames": single} for single in singles], "drive": driving}


class Quantiser:
    """One graph, its ranges known, quantised as often as wanted.

    model: as the exporter left it, with its notes. inputs: what the graph is calibrated with, by name, batch by batch.
    """

    def __init__(self, model: "onnx.ModelProto", inputs: Iterable[Mapping[str, Tensor]]) -> None:
        self.model = model
        self.parts = _parts(model)
        self._ranges = _ranges(model, inputs)

    def quantise(self, parts: Iterable[str]) -> "onnx.ModelProto":
        """These parts of the graph, of `self.parts`, in int8: weights for each channel, activations as uint8.

        QuantizeLinear and DequantizeLinear about each convolution and matrix product: standard operators.
        """
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        chosen = [node for part in parts for node in self.parts[part]]
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        if not chosen:
            return model
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=list(_WORK),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        return quantizer.model.model


def choose_parts(parts: list[str], psnr: Callable[[list[str]], float], wanted: float) -> list[str]:
    """Which parts to quantise so that pictures keep `wanted` dB.

    All, if that does. Else the part that does the most damage by itself is left in float32, and so on.
    psnr: of the pictures where these parts are in int8.
    """
    if psnr(parts) >= wanted:
        return parts
    alone = {part: psnr([part]) for part in parts}
    kept = sorted(parts, key=lambda part: alone[part], reverse=True)
    while kept and psnr(kept) < wanted:
        kept.pop()
    return [part for part in parts if part in kept]


def _parts(model: "onnx.ModelProto") -> dict[str, list[str]]:
    """Nodes that do the work, by the part of the network that they belong to: `generator.final`, `estimator.layers`."""
    parts: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in _WORK:
            scopes = next(note.value for note in node.metadata_props if note.key == _SCOPES)
            module = scopes.strip("[]").replace("'", "").split(", ")[-2]  # the last is the operator itself
            parts.setdefault(".".join(module.split(".")[:2]), []).append(node.name)
    return parts


def _ranges(model: "onnx.ModelProto", inputs: Iterable[Mapping[str, Tensor]]) -> Any:
    """The smallest and the largest value of every tensor that goes into the work or comes out of it."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(inputs)

        def get_next(self) -> Any:
            batch = next(self._batches, None)
            return batch and {value.name: batch[value.name].contiguous().numpy() for value in model.graph.input}

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, file)
        calibrator = create_calibrator(file, list(_WORK), str(Path(folder) / "augmented.onnx"))
        calibrator.collect_data(Reader())
        return calibrator.compute_data()
