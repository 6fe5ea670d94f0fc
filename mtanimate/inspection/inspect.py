"""The command `mtanimate inspect`: every step from keypoints to the result, as a figure or a video."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtanimate.checkpoints.file import read_checkpoint, read_config
from mtanimate.checkpoints.registry import resolve
from mtanimate.config.model import SPLINE_POINTS
from mtanimate.devices import choose_device
from mtanimate.errors import InputError
from mtanimate.geometry import resize
from mtanimate.inference.engine import prepare
from mtanimate.inspection.scene import occlusion_titles, scene_pictures, scene_sheet
from mtanimate.inspection.sheets import check_figure, is_video, write_figure, write_video
from mtanimate.inspection.subject import Subject, as_image
from mtanimate.models.animator import Animator
from mtanimate.outputs import claim

TITLE = "Motion and its result, drawn by mtanimate"
COMMENT = "The result is AI-generated: a picture animated with the motion of another video"
_SMALLEST = 256  # pixels of a picture in the figure: titles and legend need them


@dataclass
class InspectionResult:
    """What was written, as `--json` prints it. frame: its number in the driving video, for a single figure."""

    out: str
    pictures: list[str]
    frames: int
    frame: int | None
    width: int
    height: int
    seconds: float
    device: str
    checkpoint: str
    estimator: str
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def inspect(
    subject: Subject,
    *,
    frame: int | None = None,
    out: str | Path = "inspect.png",
    checkpoint: str = "default",
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[..., None] = lambda done, total, note="": None,
    log: Callable[[str], None] = lambda line: None,
) -> InspectionResult:
    """Draws keypoints, local affine frames, masks, flow, occlusion, warped source and result, for every estimator.

    The driver's pose is taken over (absolute transfer), so that all pictures show one motion.

    Args:
        subject: source and driving.
        frame: number in the driving video, from 0; None: the middle one.
        out: .png, .svg, .pdf, or a video of all frames.
        checkpoint: a name or a file.
        device: see `choose_device`.
        overwrite: whether an existing file may be replaced.
        progress: called with frames done and in all.
        log: gets each message.

    Raises:
        InputError: a wrong file or option.
        MTAnimateError: writing failed, or another run is writing `out`.
    """
    out = Path(out).expanduser()
    with claim(out):
        check_figure(out, overwrite, subject, checkpoint)
        if frame is not None and is_video(out):
            raise InputError(f"--frame {frame} is one figure, and {out} a video of all frames: give one of them")
        file, target = resolve(checkpoint), choose_device(device, log)
        config = read_config(file).model
        warnings: list[str] = []

        def warn(line: str) -> None:
            warnings.append(line)
            log(f"warning: {line}")

        inputs = subject.open(config.resolution, warn)
        number = inputs.length // 2 if frame is None else frame
        if number >= inputs.length:
            raise InputError(f"--frame {number}: the frames of {subject.driving} are 0 to {inputs.length - 1}")
        started = time.monotonic()
        painter = ScenePainter(read_checkpoint(file, target).animator, inputs.source)
        if is_video(out):
            write_video(out, painter.sheet, inputs, painter.paint, TITLE, COMMENT, overwrite, progress)
        else:
            (pictures,) = painter.paint(inputs.frame(number))
            write_figure(out, painter.sheet, pictures, TITLE, COMMENT, overwrite)
        return InspectionResult(
            out=str(out),
            pictures=painter.titles,
            frames=inputs.length if is_video(out) else 1,
            frame=None if is_video(out) else number,
            width=painter.sheet.width,
            height=painter.sheet.height,
            seconds=round(time.monotonic() - started, 3),
            device=str(target),
            checkpoint=checkpoint,
            estimator=config.estimator.name,
            warnings=warnings,
        )


class ScenePainter:
    """Draws what a network makes of driving frames.

    Args:
        animator: the network.
        source: uint8 (1, 3, R, R).
    """

    def __init__(self, animator: Animator, source: Tensor) -> None:
        self.animator = prepare(animator, "fp32")
        with torch.inference_mode():
            self.source = self.animator.encode_source(as_image(source, animator.device))
        config = animator.config
        self.titles = ["source", "driving", "part masks", "dense flow", *self._occlusions(), "warped source", "result"]
        self.side = max(config.resolution, _SMALLEST)
        splines = config.estimator.motion_kind == "splines"
        tokens = config.num_keypoints // SPLINE_POINTS if splines else config.num_keypoints
        self.sheet = scene_sheet(self.titles, self.side, tokens)

    @torch.inference_mode()
    def _occlusions(self) -> list[str]:
        """The titles of the network's maps of occlusion."""
        return occlusion_titles(self.animator.render(self.source, self.source.motion).motion)

    @torch.inference_mode()
    def paint(self, frames: Tensor) -> list[list[np.ndarray]]:
        """Draws the sheet's pictures for each of the frames, uint8 (B, 3, R, R)."""
        driving = as_image(frames, self.animator.device)
        motion = self.animator.estimate_motion(driving)
        background = self.animator.predict_background(self.source.picture, driving)
        rendering = self.animator.render(self.source, motion, background)
        large = (
            resize(image, (self.side, self.side)) for image in (self.source.picture, driving, rendering.prediction)
        )
        source, driving, result = large
        drawn = scene_pictures(source, driving, self.source.motion, motion, rendering.motion, result)
        return [[drawn[title][index] for title in self.titles] for index in range(len(driving))]
