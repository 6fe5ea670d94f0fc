"""What can be asked of an animation besides its files; the names are those of the command's options."""

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from mtanimate.errors import InputError
from mtanimate.faces.framing import parse_crop, parse_face

Mode = Literal["relative", "absolute"]

_STRONGEST = 100.0  # times the movement: far more, and the sums are not finite
_SMOOTHEST = 3600.0  # seconds
_LATEST = 1e6  # seconds


@dataclass(frozen=True)
class Settings:
    """mode: `relative` adds the driver's movement since the reference frame to the source's own pose; `absolute` takes
    over the driver's pose. reference_frame: `best` (the pose nearest to the source's), `first`, or a number from 0 on.
    adapt_scale: movement by the sizes of the subjects. strength: of the movement, 1 as it is.
    smooth: seconds of a Gaussian over time, 0 for none.

    crop, driving_crop: `auto` (about the face), `none` (the centred square), or X,Y,W,H in pixels. track: the driving
    square follows the face. face: of the source, `largest`, `all`, or its number from the left.
    paste_back: the animated square goes back into the whole source; None: where the source was cropped.
    background: `move` as the network moves it, `lock`: where it is background in source and result, it stays.

    start, end: seconds of the driving video. audio: keep its sound. compare: source, driving and result side by side.
    codec, crf: as `VideoWriter` takes them. mark: say in the file's metadata that it is synthetic.
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
    background: Literal["move", "lock"] = "move"
    start: float | None = None
    end: float | None = None
    audio: bool = True
    compare: bool = False
    codec: str | None = None
    crf: int | None = None
    mark: bool = True

    def check(self) -> None:
        """Raises InputError for values that are wrong, or do not fit each other."""
        for name, allowed in (("mode", ("relative", "absolute")), ("background", ("move", "lock"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"--{name} {getattr(self, name)}: not one of {', '.join(allowed)}")
        if self.reference_frame not in ("best", "first") and not re.fullmatch("[0-9]{1,9}", self.reference_frame):
            raise InputError(f"--reference-frame {self.reference_frame}: not one of best, first, or a frame's number")
        for name, most in (("strength", _STRONGEST), ("smooth", _SMOOTHEST), ("start", _LATEST), ("end", _LATEST)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise InputError(f"--{name} {value:g}: it must be at least 0 and at most {most:g}")
        if self.mode == "absolute" and self.strength != 1:
            raise InputError("--strength scales movement, and --mode absolute copies poses: give one of them")
        if self.compare and self.paste_back:
            raise InputError("--compare shows squares side by side, --paste-back whole pictures: give one of them")
        if self.track and self.driving_crop != "auto":
            raise InputError(f"--track follows the face, --driving-crop {self.driving_crop} is fixed: give one of them")
        parse_face(self.face)
        parse_crop(self.crop)
        parse_crop(self.driving_crop, "--driving-crop")
        if self.face != "largest" and self.crop != "auto":
            raise InputError(f"--face {self.face} looks for faces, --crop {self.crop} does not: give one of them")

    def changed(self, texts: dict[str, str]) -> "Settings":
        """By a row of a jobs file: option names as the command has them, without dashes in front; empty: as here."""
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
        # 0,5 is what a spreadsheet writes that has semicolons between cells.
        return int(text) if "int" in kind else float(text.replace(",", ".")) if "float" in kind else text
    except ValueError as error:
        raise InputError(f"{name} '{text}': expected a number") from error
