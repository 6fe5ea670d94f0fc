"""`mtanimate eval`."""

from pathlib import Path

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    QUIET,
    Precision,
    print_json,
    progress_bar,
    remark,
    reports_errors,
)

EXAMPLE = "Example: mtanimate eval --checkpoint default --dataset videos/ --every 4"


@reports_errors
def command(
    checkpoint: str = typer.Option("default", help="A name from 'mtanimate doctor' or a .safetensors file."),
    dataset: str = typer.Option(..., help="A folder of clips (its folder test, where it has one), or a preset's name."),
    data: Path | None = typer.Option(None, help="Where a preset's clips are.", show_default="data/NAME"),
    metrics: str = typer.Option("l1,akd,mkr,aed", help="Of l1,akd,mkr,aed,psnr,ssim,lpips."),
    detector: str = typer.Option("faces", help="What finds landmarks: faces, face-alignment, bodies or none."),
    openpose: Path | None = typer.Option(None, help="Take landmarks from this folder of OpenPose's JSON files."),
    features: Path | None = typer.Option(None, help="Take identity features from this folder of .npy files."),
    every: int = typer.Option(1, min=1, help="Use one of so many frames."),
    out: Path | None = typer.Option(None, help="The evaluation's folder.", show_default="runs/eval-CHECKPOINT-DATASET"),
    videos: Path | None = typer.Option(None, help="Write a video a clip here: truth beside reconstruction."),
    frames: Path | None = typer.Option(None, help="Write every frame here as a PNG, for other programs."),
    shard: str = typer.Option("1/1", help="Measure the I-th of N parts, as 2/4; then once more without it."),
    workers: int | None = typer.Option(None, min=1, help="Processes that look for landmarks.", show_default="cores"),
    precision: Precision = typer.Option(Precision.fp32, help="What the network computes in."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Measure how well clips are reconstructed from their first frame. The same command goes on where it stopped."""
    from mtanimate.cli.eval_tables import print_result
    from mtanimate.evaluation.evaluate import evaluate

    with progress_bar("evaluating", "videos", quiet) as progress:
        result = evaluate(
            checkpoint,
            dataset,
            data=data,
            metrics=metrics,
            detector=detector,
            openpose=openpose,
            features=features,
            every=every,
            out=out,
            videos=videos,
            frames=frames,
            shard=shard,
            workers=workers,
            device=device,
            precision=precision.value,
            progress=progress,
            say=remark(quiet),
        )
    if json:
        print_json(result)
    elif not quiet:
        print_result(result)
