"""What can be asked of an animation: its settings, and its files. The names are those of the command's options."""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from mtanimate.animation.motion_sequence import check_motion_file
from mtanimate.animation.results import STANDARD_OUTPUT, check_result
from mtanimate.errors import InputError
from mtanimate.faces.framing import parse_crop, parse_face, parse_resolution
from mtanimate.outputs import check_not_input, place

Mode = Literal["relative", "absolute", "avd"]

_STRONGEST = 100.0  # times the movement; far beyond it, sums are not finite
_SMOOTHEST = 3600.0  # seconds
_LATEST = 1e6  # seconds


@dataclass(frozen=True)
class Settings:
    """How a picture is animated.

    Attributes:
        mode: `relative` adds the driver's movement since the reference frame to the source's own pose; `absolute` takes
            over the driver's pose; `avd` takes over the driver's pose and keeps the source's shape, by a network that
            tells the two apart (TPSMM's animation via disentanglement).
        reference_frame: `best` (the pose nearest to the source's), `first`, or a frame's number from 0 on.
        adapt_scale: Scale the movement by the sizes of the subjects.
        strength: Of the movement; 1 is as it is.
        smooth: The standard deviation, in seconds, of a Gaussian over time; 0 for none.
        crop: The source's square: `auto` (about the face), `none` (the centred square), or X,Y,W,H in pixels.
        driving_crop: The driving video's square, likewise.
        track: The driving square follows the face.
        face: Of the source: `largest`, `all`, or its number from the left.
        paste_back: Paste the animated square back into the whole source. None pastes where the source was cropped.
        resolution: The largest side of an animated square, in pixels, or `auto`: 1440. A square is rendered at its own
            size, where the network passes the source's pixels on.
        background: `move` moves it as the network does; `lock` keeps what is background in both source and result.
        start: Seconds into the driving video at which to begin.
        end: Seconds into the driving video at which to end.
        audio: Keep the driving video's sound.
        compare: Show source, driving frame and result side by side.
        codec: As `VideoWriter` takes it.
        crf: As `VideoWriter` takes it.
        mark: Say in the file's metadata that it is synthetic.
    """

    mode: Mode = "relative"
    reference_frame: str = "best"
    adapt_scale: bool = True
    strength: float = 1.0
    smooth: float = 0.0
    crop: str = "auto"
    driving_crop: str = "auto"
    track: bool = False
    face: str = "largest"
    paste_back: bool | None = None
    resolution: str = "auto"
    background: Literal["move", "lock"] = "move"
    start: float | None = None
    end: float | None = None
    audio: bool = True
    compare: bool = False
    codec: str | None = None
    crf: int | None = None
    mark: bool = True

    @property
    def pasted(self) -> bool | None:
        """Whether the square is pasted back; None where that is decided by the source."""
        return False if self.compare else self.paste_back

    def check(self) -> None:
        """Raises InputError for values that are wrong, or contradict each other."""
        for name, allowed in (("mode", ("relative", "absolute", "avd")), ("background", ("move", "lock"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"--{name} {getattr(self, name)}: not one of {', '.join(allowed)}")
        if self.reference_frame not in ("best", "first") and not re.fullmatch("[0-9]{1,9}", self.reference_frame):
            raise InputError(f"--reference-frame {self.reference_frame}: not one of best, first, or a frame's number")
        for name, most in (("strength", _STRONGEST), ("smooth", _SMOOTHEST), ("start", _LATEST), ("end", _LATEST)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise InputError(f"--{name} {value:g}: it must be at least 0 and at most {most:g}")
        if self.mode != "relative" and self.strength != 1:
            raise InputError(f"--strength scales movement, and --mode {self.mode} copies poses: give one of them")
        if self.compare and self.paste_back:
            raise InputError("--compare shows squares side by side, --paste-back whole pictures: give one of them")
        if self.track and self.driving_crop != "auto":
            raise InputError(f"--track follows the face, --driving-crop {self.driving_crop} is fixed: give one of them")
        parse_resolution(self.resolution)
        parse_face(self.face)
        parse_crop(self.crop)
        parse_crop(self.driving_crop, "--driving-crop")
        if self.face != "largest" and self.crop != "auto":
            raise InputError(f"--face {self.face} looks for faces, --crop {self.crop} does not: give one of them")

    def changed(self, texts: dict[str, str]) -> "Settings":
        """These settings with the changes of a row of a jobs file.

        Args:
            texts: By the names of the command's options, without the dashes in front. An empty text changes nothing.

        Raises:
            InputError: A name is unknown or a value is wrong.
        """
        known = {field.name.replace("_", "-"): field for field in fields(self)}
        values: dict[str, Any] = {}
        for name, text in texts.items():
            if name not in known:
                raise InputError(f"unknown column '{name}'; options are {', '.join(known)}")
            if text != "":
                values[known[name].name] = _converted(name, text, str(known[name].type))
        settings = replace(self, **values)
        settings.check()
        return settings


def _converted(name: str, text: str, kind: str) -> Any:
    if "bool" in kind:
        words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
        if text.lower() not in words:
            raise InputError(f"{name} '{text}': expected yes or no")
        return words[text.lower()]
    try:
        # Spreadsheets that separate cells by semicolons write 0,5.
        return int(text) if "int" in kind else float(text.replace(",", ".")) if "float" in kind else text
    except ValueError as error:
        raise InputError(f"{name} '{text}': expected a number") from error


@dataclass(frozen=True)
class Job:
    """The files of one animation: driving or motion is given, not both."""

    source: Path
    driving: Path | None
    out: Path
    motion: Path | None = None
    save_motion: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """The files and folders that it writes."""
        return [path for path in (self.out, self.save_motion) if path is not None and path != STANDARD_OUTPUT]

    @property
    def inputs(self) -> list[Path]:
        return [path for path in (self.source, self.driving, self.motion) if path is not None]

    def check(self, settings: Settings, overwrite: bool, checkpoint: Path | None = None) -> None:
        """Raises InputError for what can be known to be wrong before any work. checkpoint: One more input."""
        settings.check()
        if (self.driving is None) == (self.motion is None):
            raise InputError("give either --driving, a video, or --motion, a file that --save-motion wrote")
        if self.motion and (self.save_motion or settings.start is not None or settings.end is not None):
            raise InputError("--motion plays a sequence as it is: --save-motion, --start, --end go with --driving")
        if self.motion and settings.compare:
            raise InputError("--compare shows the driving video, and --motion has none")
        check_result(self.out, overwrite, settings.codec, settings.crf)
        if self.save_motion:
            check_motion_file(self.save_motion, overwrite)
        if len(set(map(place, self.outputs))) < len(self.outputs):
            raise InputError(f"--save-motion {self.save_motion} is also --out: choose another name")
        for path in self.outputs:
            check_not_input("--out" if path == self.out else "--save-motion", path, [*self.inputs, checkpoint])
