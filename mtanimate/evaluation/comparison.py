"""Evaluations compared with each other and with the figures that the paper prints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtanimate.errors import InputError
from mtanimate.evaluation.clip_results import (
    FIRST_FRAME,
    GENERATED,
    ClipResult,
    json_with,
    read_clip_results,
    read_result,
    write_json,
)
from mtanimate.evaluation.evaluate import evaluate
from mtanimate.evaluation.samples import MARK, is_ours
from mtanimate.evaluation.summary import METHOD, interval, mean
from mtanimate.faces.detection import resize_frames
from mtanimate.inspection.scene import labelled_grid
from mtanimate.metrics.measures import METRICS, Metric
from mtanimate.outputs import claim, refuse_foreign
from mtanimate.video import read_image, write_image

# Table 2. Bodies: AKD and MKR by OpenPose, AED by a re-identification network. Faces: AKD and MKR by face-alignment,
# AED by OpenFace. L1 is of RGB in [0, 1]. The paper only describes AKD, MKR and AED in words. Its tables continue those
# of FOMM and MRAA, so its figures are taken to be those of the public scripts that evaluate these.
TABLE_2 = {
    "TaiChiHD": {
        "FOMM": {"l1": 0.057, "akd_field": 6.649, "mkr_field": 0.036, "aed_field": 0.172},
        "MRAA": {"l1": 0.048, "akd_field": 5.246, "mkr_field": 0.024, "aed_field": 0.150},
        "Motion Transformer": {"l1": 0.045, "akd_field": 4.670, "mkr_field": 0.021, "aed_field": 0.148},
    },
    "TED-talks": {
        "FOMM": {"l1": 0.029, "akd_field": 4.382, "mkr_field": 0.008, "aed_field": 0.127},
        "MRAA": {"l1": 0.027, "akd_field": 3.955, "mkr_field": 0.007, "aed_field": 0.118},
        "Motion Transformer": {"l1": 0.026, "akd_field": 3.456, "mkr_field": 0.007, "aed_field": 0.113},
    },
    "VoxCeleb": {
        "FOMM": {"l1": 0.041, "akd_field": 1.29, "aed_field": 0.133},
        "MRAA": {"l1": 0.040, "akd_field": 1.28, "aed_field": 0.133},
        "Motion Transformer": {"l1": 0.038, "akd_field": 1.18, "aed_field": 0.116},
    },
    "MGIF": {
        "FOMM": {"l1": 0.0224},
        "MRAA": {"l1": 0.0274},
        "Motion Transformer": {"l1": 0.0200},
    },
}
REMARK = (
    "quoted from the paper's Table 2: full-size networks, other clips, other detectors; taken for the field's figures, "
    "by a reading of its public scripts"
)
_SUBJECTS = {"faces": ["VoxCeleb"], "bodies": ["TaiChiHD", "TED-talks"]}


def table_2_for(subject: str | None) -> dict[str, dict[str, float]]:
    """The rows of Table 2 for faces or bodies, by `data set, method`; those of MGIF's animals where it is neither."""
    rows: dict[str, dict[str, float]] = {}
    for dataset in _SUBJECTS.get(subject or "", ["MGIF"]):
        rows |= {f"{dataset}, {method}": figures for method, figures in TABLE_2[dataset].items()}
    return rows


GRID_ROWS = 6  # videos in the picture
_is_comparison = json_with("figures", "differences", "quoted")


@dataclass(frozen=True)
class FinishedEvaluation:
    """A finished evaluation: its folder, its result, and the results of its clips by their names."""

    folder: Path
    result: dict[str, Any]
    clips: dict[str, ClipResult]

    @property
    def metrics(self) -> list[Metric]:
        return [METRICS[name] for name in self.result["settings"]["metrics"]]


def compare(
    evaluations: Sequence[str],
    out: str | Path,
    *,
    dataset: str | Path | None = None,
    log: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> dict[str, Any]:
    """Compare evaluations with the first of them, on the videos that they have in common.

    Writes `OUT/comparison.png` and `OUT/comparison.json`.

    Args:
        evaluations: Folders that `eval` wrote, or checkpoints, which are evaluated first.
        out: The comparison's folder.
        dataset: What checkpoints are evaluated on.
        log: Gets remarks and warnings.
        options: How checkpoints are evaluated; the options of `evaluate`.

    Returns:
        The comparison, as `--json` prints it.

    Raises:
        InputError: The evaluations were measured in different ways, or have no video in common.
        MTAnimateError: Something cannot be written, or another run writes it.
    """
    if len(evaluations) < 2:
        raise InputError("--compare needs two or more: folders that eval wrote, or checkpoints")
    picture = Path(out).expanduser() / "comparison.png"
    with claim(picture):
        refuse_foreign("--out", [picture], is_ours)
        refuse_foreign("--out", [picture.with_name("comparison.json")], _is_comparison)
        return _compare(evaluations, picture, dataset, log, options)


def _compare(
    evaluations: Sequence[str],
    picture: Path,
    dataset: str | Path | None,
    log: Callable[[str], None],
    options: dict[str, Any],
) -> dict[str, Any]:
    every = {
        title: _finished(name, dataset, log, options)
        for title, name in zip(_titles(evaluations), evaluations, strict=True)
    }
    first = next(iter(every.values()))
    _check_alike(every)
    common = [
        name for name, clip in first.clips.items() if all(_same(clip, each.clips.get(name)) for each in every.values())
    ]
    if not common:
        raise InputError(f"{' and '.join(every)} have no video in common")
    values = {name: _values(each, GENERATED, common) for name, each in every.items()}
    identities = [first.clips[name].identity for name in common]
    base, *others = every
    differences = {
        name: {metric: _difference(values[base][metric], values[name][metric], identities) for metric in values[name]}
        for name in others
    }
    values["repeating the first frame"] = _values(first, FIRST_FRAME, common)
    figures = {name: {metric: _figure(each, identities) for metric, each in of.items()} for name, of in values.items()}
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_image(picture, _grid(every, _spread(values[base], common)), {"Software": MARK}, is_ours)
    result = {
        "videos": len(common),
        "not_in_all": sorted({name for each in every.values() for name in each.clips} - set(common)),
        "figures": figures,
        "differences": differences,
        "quoted": {"remark": REMARK, "rows": table_2_for(first.result["settings"]["subject"])},
        "definitions": first.result["definitions"]
        | {"differences": f"mean over videos of a figure less that of {base} on the same video; {METHOD}"},
        "picture": str(picture),
    }
    write_json(picture.with_name("comparison.json"), result, _is_comparison)
    return result


def _titles(evaluations: Sequence[str]) -> list[str]:
    """Headings for the evaluations: the last parts of their names where those differ, else the whole names."""
    short = [Path(each).stem for each in evaluations]
    titles = short if len(set(short)) == len(short) else list(evaluations)
    if len(set(titles)) < len(titles):
        raise InputError("--compare: the same evaluation is named twice")
    return titles


def _finished(
    name: str, dataset: str | Path | None, log: Callable[[str], None], options: dict[str, Any]
) -> FinishedEvaluation:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if dataset is None:
            raise InputError(f"--compare {name}: no folder of an evaluation; a checkpoint needs --dataset")
        log(f"evaluating {name}")
        folder = Path(evaluate(name, dataset, log=log, **options)["out"])
    result, clips = read_result(folder), read_clip_results(folder)
    if result.get("kind") != "reconstruction":
        raise InputError(
            f"--compare {name}: it holds {result.get('kind')}, and only reconstructions have a truth to compare"
        )
    if not _is_whole(result, clips):
        raise InputError(f"--compare {name}: its files are not as eval wrote them: run eval with another --out")
    return FinishedEvaluation(folder, result, clips)


def _is_whole(result: dict[str, Any], clips: dict[str, ClipResult]) -> bool:
    settings = result.get("settings")
    if not isinstance(settings, dict) or not isinstance(result.get("definitions"), dict):
        return False
    metrics, subject = settings.get("metrics"), settings.get("subject", 0)
    known = isinstance(metrics, list) and all(isinstance(name, str) and name in METRICS for name in metrics)
    measured = all({GENERATED, FIRST_FRAME} <= clip.series.keys() for clip in clips.values())
    return bool(metrics) and known and measured and (subject is None or isinstance(subject, str))


def _check_alike(every: dict[str, FinishedEvaluation]) -> None:
    """Raises InputError where anything but the checkpoint differs."""
    (base, first), *others = every.items()
    for name, other in others:
        settings = first.result["settings"], other.result["settings"]
        for key in {**settings[0], **settings[1]}:
            values = [each.get(key) for each in settings]
            if key != "checkpoint" and values[0] != values[1]:
                raise InputError(f"{base} and {name} cannot be compared: {key} is {values[0]} and {values[1]}")


def _same(clip: ClipResult, other: ClipResult | None) -> bool:
    """Whether both are of the same video."""
    return other is not None and other.digest == clip.digest


def _values(evaluation: FinishedEvaluation, series: str, videos: Sequence[str]) -> dict[str, list[float | None]]:
    return {
        metric.name: [evaluation.clips[video].value(series, metric) for video in videos]
        for metric in evaluation.metrics
    }


def _figure(values: Sequence[float | None], identities: Sequence[str]) -> dict[str, Any]:
    return {"mean": mean(values), "interval": interval(values, identities)}


def _difference(
    base: Sequence[float | None], other: Sequence[float | None], identities: Sequence[str]
) -> dict[str, Any]:
    """The mean difference over the videos that have both figures, with its interval."""
    pairs = zip(base, other, strict=True)
    return _figure([None if a is None or b is None else b - a for a, b in pairs], identities)


def _spread(values: dict[str, list[float | None]], videos: Sequence[str]) -> list[str]:
    """Up to `GRID_ROWS` videos, evenly from the best to the worst by the first metric."""
    figures = next(iter(values.values()))
    ranked = [video for _, video in sorted((value or 0.0, video) for value, video in zip(figures, videos, strict=True))]
    return [ranked[i] for i in np.linspace(0, len(ranked) - 1, min(GRID_ROWS, len(ranked))).round().astype(int)]


def _grid(every: dict[str, FinishedEvaluation], videos: Sequence[str]) -> np.ndarray:
    """A row per video: source, truth and what each checkpoint generated, at the frame least like the first."""
    side = next(iter(every.values())).result["settings"]["resolution"]
    strips = {
        name: [_thirds(each.folder / "strips" / f"{video}.png", side) for video in videos]
        for name, each in every.items()
    }
    first = next(iter(strips.values()))
    columns = {"source": [source for source, _, _ in first], "truth": [truth for _, truth, _ in first]}
    return labelled_grid(columns | {name: [generated for _, _, generated in each] for name, each in strips.items()})


def _thirds(strip: Path, side: int) -> list[np.ndarray]:
    """The squares of a strip, all of this side."""
    squares = np.stack(np.split(read_image(strip), 3, axis=1))
    return list(resize_frames(squares, side).permute(0, 2, 3, 1).numpy())
