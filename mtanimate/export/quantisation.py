"""Post-training quantisation to int8: ranges come from calibration frames; parts that lose too much stay float32."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtanimate.export.parity import DECIBELS, decibels
from mtanimate.export.programs import save_models
from mtanimate.inference.backends import drive_inputs, open_graph
from mtanimate.inference.manifest import Graph, digests, graphs_of
from mtanimate.models.animator import Animator

if TYPE_CHECKING:
    import onnx

# The graphs that run for every frame and compute no coordinates of the background.
QUANTISED = ("estimate", "drive")
PIXELS = 0.25  # that a keypoint may move; with more, a still face trembles
WANTED = DECIBELS["int8"] + 2  # dB that pictures must reach; frames that are not measured may lose more
_WORK = ("Conv", "MatMul", "Gemm", "Relu")  # with Relu, which is fused: values are rounded after it
_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note of a node's modules, outermost first


@torch.inference_mode()
def quantise_models(
    animator: Animator, models: "dict[str, onnx.ModelProto]", groups: Sequence[Tensor], progress: Callable[[str], None]
) -> "tuple[dict[str, onnx.ModelProto], list[str], list[str]]":
    """Quantises what may be in int8.

    Every other frame sets the ranges; those between show what is lost.

    Args:
        animator: the original network.
        models: ONNX models by the graph's name, with the exporter's notes.
        groups: frames (N, 3, R, R) in [0, 1] that belong together.
        progress: gets each step.

    Returns:
        The models; names of the parts in int8; names of those that had to stay in float32.
    """
    few = -(-8 // len(groups))  # frames of a group that are measured
    ranging = [_calibration(animator, group[::2]) for group in groups]
    measuring = [_calibration(animator, torch.cat([group[:1], group[1::2][:few]])) for group in groups]
    models = dict(models)
    int8: list[str] = []
    float32: list[str] = []
    for graph in graphs_of(animator.config):
        if graph.name in QUANTISED:
            progress(f"finding the ranges of values in {graph.name}")
            quantiser = Quantiser(models[graph.name], (each for group in ranging for each in group[graph.name]))
            harm = _harm(quantiser, graph, [each for group in measuring for each in group[graph.name]], progress)
            chosen = choose_parts(list(quantiser.parts), harm)
            models[graph.name] = quantiser.quantise(chosen)
            int8 += chosen
            float32 += [part for part in quantiser.parts if part not in chosen]
    return models, int8, float32


def choose_parts(parts: list[str], harm: Callable[[list[str]], float]) -> list[str]:
    """Chooses parts to quantise: all, or as many as are harmless together, the least harmful first.

    Args:
        parts: names.
        harm: the harm of parts in int8 together, as a fraction of what is allowed.

    Returns:
        The chosen names, in the order of `parts`.
    """
    if harm(parts) <= 1:
        return parts
    alone = {part: harm([part]) for part in parts}
    ordered = sorted(parts, key=lambda part: alone[part])
    fewest, most = 0, len(parts) - 1  # the number to quantise lies between, both included
    while fewest < most:
        number = (fewest + most + 1) // 2
        if harm(ordered[:number]) <= 1:
            fewest = number
        else:
            most = number - 1
    return [part for part in parts if part in ordered[:fewest]]


class Quantiser:
    """Quantises chosen parts of one graph.

    Args:
        model: with the exporter's notes.
        inputs: for calibration, by name, batch by batch.

    Attributes:
        parts: nodes by the name of the part.
    """

    def __init__(self, model: "onnx.ModelProto", inputs: Iterable[Mapping[str, Tensor]]) -> None:
        self.model = model
        self.parts = _parts(model)
        self._ranges = _ranges(model, inputs)

    def quantise(self, parts: Iterable[str]) -> "onnx.ModelProto":
        """Quantises these parts, of `self.parts`: weights as int8 for each channel, activations as uint8.

        QuantizeLinear and DequantizeLinear about each convolution and matrix product are standard operators.
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


def _harm(
    quantiser: "Quantiser", graph: Graph, given: Sequence[Mapping[str, Tensor]], progress: Callable[[str], None]
) -> Callable[[list[str]], float]:
    """How much parts in int8 change the graph's first output (keypoints or pictures), relative to the limit."""

    def run(model: "onnx.ModelProto") -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            save_models({graph.name: model}, "onnx", False, Path(folder))
            work = open_graph("onnx", Path(folder), graph, digests(Path(folder)))
            return torch.cat([work(each)[graph.outputs[0]] for each in given])

    wanted = run(quantiser.model)

    def harm(chosen: list[str]) -> float:
        found = run(quantiser.quantise(chosen))
        which = f"{graph.name}, int8 in {chosen[0] if len(chosen) == 1 else f'{len(chosen)} parts'}"
        if graph.name == "estimate":
            pixels = float((found - wanted).abs().max()) * given[0]["frames"].shape[-1] / 2
            progress(f"{which}: a keypoint moves by {pixels:.2f} pixels at most")
            return pixels / PIXELS
        kept = min(map(decibels, wanted, found))
        progress(f"{which}: {kept:.1f} dB at least")
        return 10 ** ((WANTED - kept) / 20)

    return harm


def _calibration(animator: Animator, frames: Tensor) -> dict[str, list[dict[str, Tensor]]]:
    """The inputs of the graphs when the first of these frames is driven by each."""
    source = animator.encode_source(frames[:1])
    singles = frames.split(1)
    driving = [
        drive_inputs(
            animator.config, source, animator.estimate_motion(single), animator.predict_background(frames[:1], single)
        )
        for single in singles
    ]
    return {"estimate": [{"frames": single} for single in singles], "drive": driving}


def _parts(model: "onnx.ModelProto") -> dict[str, list[str]]:
    """Nodes with multiplications, by the part of the network that they belong to, as `estimator.backbone.stage2`."""
    parts: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in _WORK:
            scopes = next(note.value for note in node.metadata_props if note.key == _SCOPES)
            module = scopes.strip("[]").replace("'", "").split(", ")[-2]  # the last is the operator itself
            parts.setdefault(".".join(module.split(".")[:3]), []).append(node.name)
    return parts


def _ranges(model: "onnx.ModelProto", inputs: Iterable[Mapping[str, Tensor]]) -> Any:
    """The smallest and the largest value of the inputs and outputs of all nodes with multiplications."""
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
