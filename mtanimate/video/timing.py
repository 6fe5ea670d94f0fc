"""When frames are shown: exact frame rates, variable rates, and the frames of a time range."""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtanimate.errors import InputError

if TYPE_CHECKING:
    pass

_LONGEST_WAIT = 10  # seconds, as in ffmpeg: a clock that jumps further was reset
_TYPED = Fraction(1, 2000)  # people type times to the millisecond: 0.067 is the frame at 2/30


def frame_rate(times: list[int], tick: Fraction, declared: float | None) -> Fraction:
    """The exact frame rate: the common rate nearest to the declared one that agrees with the frames' times.

    Matroska and GIF store times in steps of 1 or 10 ms, so that 30000/1001 can only be recognised, not read.

    Args:
        times: of the frames, in ticks, ascending.
        tick: seconds.
        declared: the container's rate, to two decimals, or None.

    Returns:
        Frames a second; the mean rate where no common rate agrees (the rate varies).
    """
    span = (times[-1] - times[0]) * tick
    mean = (len(times) - 1) / span if span > 0 else None
    near = declared or float(mean or 25)
    common = [Fraction(round(near)), Fraction(round(near * 1.001) * 1000, 1001), Fraction(round(near * 2), 2)]
    for rate in sorted(common, key=lambda rate: abs(rate - near)):
        if rate > 0 and (mean is None or abs((len(times) - 1) / rate - span) <= 2 * tick):
            return rate
    return mean.limit_denominator(1001) if mean else Fraction(near).limit_denominator(1001)


def is_variable(times: list[int], tick: Fraction, fps: Fraction) -> bool:
    """Whether frames deviate from a constant rate by two ticks, or by half a frame.

    Args:
        times: of the frames, in ticks, ascending.
        tick: seconds.
        fps: the constant rate, in frames a second.
    """
    seconds = (np.array(times) - times[0]) * float(tick)
    away = np.abs(seconds - np.arange(len(times)) / float(fps)).max()
    return bool(away > min(2 * tick, 1 / fps / 2) + Fraction(1, 10**9))


def continuous_times(times: list[int], tick: Fraction, rate: Fraction) -> list[int]:
    """Repairs the times of a recording whose clock jumps back or far ahead: the next frame follows one frame later.

    Args:
        times: of the frames in the order they are shown, in ticks.
        tick: seconds.
        rate: frames a second.

    Returns:
        Times in ticks, ascending.
    """
    step, most = round(1 / (rate * tick)), _LONGEST_WAIT / tick
    shift, shown = 0, times[:1]
    for time in times[1:]:
        if not 0 < time + shift - shown[-1] <= most:
            shift = shown[-1] + step - time
        shown.append(time + shift)
    return shown


def frames_between(
    path: Path, times: Sequence[Fraction], fps: Fraction, start: float | None, end: float | None
) -> range:
    """The numbers of the frames in a time range. A frame up to half a millisecond off counts as inside.

    Args:
        path: named in the error.
        times: of the frames, in seconds, ascending.
        fps: frames a second, for the length of the last frame.
        start: first second, or None for the beginning.
        end: second to stop before, or None for the end.

    Returns:
        A range of frame numbers, not empty.

    Raises:
        InputError: no frame is left; the message tells the video's length.
    """
    first = 0 if start is None else bisect_left(times, start - _TYPED)
    last = len(times) if end is None else bisect_left(times, end - _TYPED)
    if (start is not None and not start >= 0) or first >= last:  # `not`: nan is refused too
        asked = f"from {0 if start is None else start:g} s" + ("" if end is None else f" to {end:g} s")
        length = float(times[-1] + 1 / fps)
        raise InputError(f"{path} shows no frame {asked}: it is {length:.2f} s long, choose times in it")
    return range(first, last)
