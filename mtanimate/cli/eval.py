"""`mtanimate eval`."""

import sys
from pathlib import Path
from typing import Any

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    QUIET,
    Mode,
    Precision,
    print_json,
    progress_bar,
    remark,
    reports_errors,
)

EXAMPLE = "Example: mtanimate eval --checkpoint default --dataset videos/ --every 4"


@reports_errors
def command(
    evaluations: list[str] = typer.Argument(None, help="For --compare: folders that eval wrote, or checkpoints."),
    compare: bool = typer.Option(False, "--compare", help="Compare evaluations with the first of them."),
    checkpoint: str = typer.Option("default", help="From 'mtanimate checkpoints list', or a .safetensors file."),
    dataset: str | None = typer.Option(
        None, help="A folder of clips (its folder test, where it has one), or a preset's name.", show_default="required"
    ),
    data: Path | None = typer.Option(None, help="Where a preset's clips are.", show_default="data/NAME"),
    metrics: str | None = typer.Option(
        None,
        help="Of l1,akd,akd_field,mkr,mkr_field,aed,aed_field,psnr,ssim,lpips.",
        show_default="all but the last three",
    ),
    detector: str = typer.Option("faces", help="What finds landmarks: faces, face-alignment, bodies or none."),
    openpose: Path | None = typer.Option(None, help="Take landmarks from this folder of OpenPose's JSON files."),
    features: Path | None = typer.Option(None, help="Take identity features from this folder of .npy files."),
    cross: str | None = typer.Option(None, help="Drive people by others' clips: so many random pairs, or PAIRS.csv."),
    sources: Path | None = typer.Option(None, help="With --cross N: a folder of photographs to be driven."),
    mode: Mode = typer.Option(Mode.relative, help="How --cross transfers motion."),
    seed: int = typer.Option(0, min=0, help="Of the random pairs."),
    every: int = typer.Option(1, min=1, help="Use one of so many frames."),
    out: Path | None = typer.Option(None, help="The evaluation's folder.", show_default="runs/eval-CHECKPOINT-DATASET"),
    videos: Path | None = typer.Option(None, help="Write a video a clip here: truth beside reconstruction."),
    frames: Path | None = typer.Option(None, help="Write every frame here as a PNG, for other programs."),
    shard: str = typer.Option("1/1", help="Measure part I of N only, as 2/4; at last without it."),
    gpus: int | None = typer.Option(None, min=1, help="GPUs of this machine to share the clips."),
    workers: int | None = typer.Option(None, min=1, help="Processes that look for landmarks.", show_default="cores"),
    precision: Precision = typer.Option(Precision.fp32, help="What the network computes in."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Measure how well clips are reconstructed from their first frame. The same command goes on where it stopped."""
    from mtanimate.cli.eval_tables import print_comparison, print_result
    from mtanimate.devices import check_gpus
    from mtanimate.errors import InputError
    from mtanimate.evaluation.comparison import compare as compare_evaluations
    from mtanimate.evaluation.evaluate import evaluate
    from mtanimate.evaluation.shards import run_shards

    if evaluations and not compare:
        raise InputError(f"{evaluations[0]}: names of evaluations go with --compare; a checkpoint with --checkpoint")
    if dataset is None and not compare:
        raise InputError("--dataset is missing: a folder of clips, or a preset's name")
    if gpus is not None and shard == "1/1" and not compare:  # the parts' own commands have a shard
        check_gpus(gpus)
        run_shards([f"cuda:{index}" for index in range(gpus)], sys.argv[1:])
    options: dict[str, Any] = {
        "data": data,
        "metrics": metrics,
        "detector": detector,
        "openpose": openpose,
        "features": features,
        "every": every,
        "videos": videos,
        "frames": frames,
        "workers": workers,
        "device": device,
        "precision": precision.value,
    }
    with progress_bar("evaluating", "videos", quiet) as progress:
        common = {**options, "progress": progress, "say": remark(quiet)}
        if compare:
            folder = out or Path("runs") / "compare"
            result = compare_evaluations(evaluations, folder, dataset=dataset, **common)
        else:
            own: dict[str, Any] = {"cross": cross, "sources": sources, "mode": mode.value, "seed": seed}
            own |= {"out": out, "shard": shard}
            assert dataset is not None
            result = evaluate(checkpoint, dataset, **common, **own)
    if json:
        print_json(result)
    elif not quiet:
        (print_comparison if compare else print_result)(result)
