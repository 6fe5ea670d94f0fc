"""What visitors can ask for: the use cases of the commands, with uploaded files and a progress that can be stopped."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtanimate.animation.animate import read_motion, run_job
from mtanimate.animation.inputs import Messages, open_inputs
from mtanimate.animation.motion_sequence import save_motion
from mtanimate.animation.settings import Job, Settings
from mtanimate.animation.source import open_renderer
from mtanimate.errors import InputError
from mtanimate.faces.detection import Box, check_installed, find_faces
from mtanimate.inference.predictor import Predictor
from mtanimate.inspection.attention import show_attention
from mtanimate.inspection.inspect import inspect
from mtanimate.inspection.subject import PORTRAIT, Subject
from mtanimate.video import read_image
from mtanimate.web.running import Runner

Progress = Callable[..., None]

_LOOKED_AT = 1600  # pixels of the longer side in which faces are looked for, as `frame_source` does
FORMATS = ("mp4", "webm", "gif")


@dataclass(frozen=True)
class Made:
    """A file that was made, and what there is to say about it.

    Attributes:
        file: In the private folder.
        line: What it is.
        warnings: Of the run.
    """

    file: Path
    line: str
    warnings: list[str]


def faces_in(picture: np.ndarray) -> list[Box]:
    """The faces of a photo from left to right, as `--face` counts them. Empty also where dlib is missing."""
    try:
        check_installed()
    except InputError:
        return []
    return sorted(find_faces(picture, largest=_LOOKED_AT), key=lambda box: box.centre)


def read_photo(runner: Runner, photo: str | None) -> np.ndarray:
    """Raises InputError where there is none, or it cannot be read or is too large."""
    return read_image(_given(photo, "photo"), max_pixels=runner.limits.pixels)


def animate(
    runner: Runner, photo: str | None, driving: str | None, kind: str, settings: dict[str, Any]
) -> Callable[[Progress], Made]:
    """The work of one animation, with everything checked that can be known before.

    Args:
        photo, driving: Uploaded files.
        kind: One of `FORMATS`.
        settings: Fields of `Settings`.
    """
    source = _given(photo, "photo")
    runner.open_clip(driving)
    assert driving is not None
    return lambda progress: _run(runner, Job(source, Path(driving), Path(f"result.{kind}")), settings, progress)


def apply_motion(
    runner: Runner, motion: str | None, photos: list[str] | None, settings: dict[str, Any]
) -> Callable[[Progress], list[Made | str]]:
    """The work of giving one kept motion to many photos. A photo that fails gives a line instead."""
    file = _given(motion, "file with the motion")
    if not photos:
        raise InputError("the photos are missing: upload one or more first")

    def work(progress: Progress) -> list[Made | str]:
        made: list[Made | str] = []
        for number, photo in enumerate(photos):

            def within(done: int, total: int, stage: str, number: int = number) -> None:
                if stage == "animating":
                    progress(number * total + done, len(photos) * total, stage)

            try:
                job = Job(Path(photo), None, Path(f"{Path(photo).stem[:40]}.mp4"), motion=file)
                made.append(_run(runner, job, settings, within))
            except InputError as error:
                made.append(runner.words(error))
        return made

    return work


def keep_motion(runner: Runner, photo: str | None, driving: str | None) -> Callable[[Progress], Made]:
    """The work of reading a driving video's motion into a file. Without a photo, the portrait that ships stands in."""
    runner.open_clip(driving)
    assert driving is not None

    def work(progress: Progress) -> Made:
        messages, chosen = Messages(progress, _nothing), Settings()
        with runner.room.new_folder() as folder:
            out = folder / "motion.safetensors"
            job = Job(Path(photo) if photo else PORTRAIT, Path(driving), folder / "unused.mp4", save_motion=out)
            inputs = open_inputs(job, chosen, messages, gpu=False, max_pixels=runner.limits.pixels)
            predictor = Predictor.of(runner.loaded, messages.warn)
            renderer = open_renderer(predictor, inputs.source, inputs.squares, paste=False, lock=False)
            sequence = read_motion(inputs.driving, job, chosen, runner.loaded, predictor, renderer, messages)
            save_motion(out, sequence)
        return Made(out, f"the motion of {len(sequence)} frames", _public(runner, messages.warnings))

    return work


def look_inside(
    runner: Runner, photo: str | None, driving: str | None, what: str, moving: bool, layer: str
) -> Callable[[Progress], Made]:
    """The work of drawing a figure, or a video of one for each frame.

    Args:
        what: `steps` (keypoints, masks, flow) or `attention`.
        moving: A video of all frames instead of the middle one.
        layer: Of the attention: a number from 1, or `all`.
    """
    source = _given(photo, "photo")
    runner.open_clip(driving)
    subject = Subject.of(None, source, driving, max_pixels=runner.limits.pixels)

    def work(progress: Progress) -> Made:
        network: dict[str, Any] = {"checkpoint": runner.loaded.name, "device": str(runner.loaded.device)}

        def drawn(done: int, total: int, note: str = "") -> None:
            progress(done, total, "drawing")

        drawn(0, 1)
        with runner.room.new_folder() as folder:
            out = folder / f"{what}.{'mp4' if moving else 'png'}"
            if what == "attention":
                seen = show_attention(subject, layer=layer, out=out, progress=drawn, **network)
                return Made(out, f"attention of {len(seen.tokens)} motion tokens", _public(runner, seen.warnings))
            shown = inspect(subject, out=out, progress=drawn, **network)
            return Made(out, ", ".join(shown.pictures), _public(runner, shown.warnings))

    return work


def _run(runner: Runner, job: Job, settings: dict[str, Any], progress: Progress) -> Made:
    """An animation in a folder of its own, where `job.out` becomes a file."""
    chosen = Settings(**settings)
    given: dict[str, Any] = {"gpu": runner.loaded.device.type == "cuda", "overwrite": False}
    given |= {"max_pixels": runner.limits.pixels, "credentials": runner.credentials}
    with runner.room.new_folder() as folder:
        job = replace(job, out=folder / job.out)
        job.check(chosen, overwrite=False)
        result = run_job(job, chosen, lambda: runner.loaded, progress, _nothing, **given)
    line = f"{result.frames} frames, {result.width} x {result.height}, made in {result.seconds:.1f} s"
    return Made(job.out, line, _public(runner, result.warnings))


def _nothing(line: str) -> None:
    """Remarks are for the command line; warnings come with the result."""


def _public(runner: Runner, lines: list[str]) -> list[str]:
    return [runner.room.without_paths(line) for line in lines]


def _given(path: str | None, what: str) -> Path:
    if not path:
        raise InputError(f"the {what} is missing: upload one first")
    return Path(path)
