"""Colour conversion: from decoded frames to upright 8-bit RGB with square pixels, for BT.709 and sRGB screens."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Numbers of ITU-T H.273, as in libav and in files.
_UNSPECIFIED = 2
_BT709, _BT601, _SMPTE240M, _BT2020 = 1, 5, 7, 9  # matrices, with swscale's numbers
_PQ, _HLG = 16, 18
_FULL, _LIMITED = 2, 1
_EXACT = 0x40000  # SWS_ACCURATE_RND; without it, pictures are darker by one level
_FAST_BILINEAR, _BICUBIC = 0x1, 0x4

# To linear BT.709 red, green, blue.
_TO_BT709 = {
    9: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],  # BT.2020
    12: [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],  # Display P3
}
_WHITE = 100.0  # cd/m², white of an SDR screen. HDR keeps its brightness up to
_KNEE = 0.6  # this share of white; brighter light, up to _PEAK, is compressed into the rest.
_PEAK = 10.0  # times white: 1000 cd/m², for which HLG and most PQ is mastered
_LEVELS = 4096  # of the tables: 12 bits
_STRANGEST = 5  # largest aspect ratio of a pixel; beyond, the file is wrong


@dataclass(frozen=True)
class FrameFormat:
    """How the decoded frames of a video become pictures.

    Attributes:
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        stored: width and height with square pixels, before rotation.
        turn: a, b, c, d of the display matrix: stored column x, row y goes to (a x + c y, b x + d y).
        transfer: the transfer function's number in ITU-T H.273.
        primaries: the colour primaries' number in ITU-T H.273.
    """

    width: int
    height: int
    stored: tuple[int, int]
    turn: tuple[int, int, int, int]
    transfer: int
    primaries: int

    @classmethod
    def of_frame(cls, frame: "VideoFrame", stream: "VideoStream") -> "FrameFormat":
        """Reads the format from a video's first frame; pixels that are not square are stretched."""
        width, height = _square(frame.width, frame.height, stream.sample_aspect_ratio)
        a, b, c, d = _turn(frame)
        upright = (height, width) if abs(b) > abs(a) else (width, height)
        return cls(*upright, (width, height), (a, b, c, d), frame.color_trc, frame.color_primaries)

    @property
    def note(self) -> str:
        """What users should know of the conversion, or ""."""
        kind = {_PQ: "PQ", _HLG: "HLG"}.get(self.transfer)
        return f"HDR ({kind}) is shown as on an SDR screen: the brightest light is dimmed" if kind else ""


class Converter:
    """Converts the frames of one video to pictures.

    Args:
        format: of the video.
        threads: of swscale; 0: one for each core.
    """

    def __init__(self, format: FrameFormat, threads: int) -> None:
        from av.video.reformatter import VideoReformatter

        self._format, self._threads = format, threads
        self._reformatter = VideoReformatter()
        width, height = format.stored
        self._pixels = np.empty((height, width, 3), np.uint8)  # reused: allocating it for each frame is slow

    def __call__(self, frame: "VideoFrame") -> np.ndarray:
        """Converts a frame to uint8 RGB (height, width, 3); the next call overwrites the array."""
        format = self._format
        wide = format.transfer in (_PQ, _HLG) or format.primaries in _TO_BT709
        plain = frame.format.is_rgb or frame.format.has_palette
        converted = self._reformatter.reformat(
            frame,
            *format.stored,
            "gbrp12le" if wide else "rgb24" if plain else "gbrp",  # for exactness and speed
            src_colorspace=_matrix(frame),
            src_color_range=None if plain else frame.color_range or _LIMITED,
            dst_color_range=_FULL,
            interpolation=_EXACT | (_FAST_BILINEAR if format.stored == (frame.width, frame.height) else _BICUBIC),
            threads=self._threads,
        )
        if wide:
            _to_sdr(converted.to_ndarray(), self._pixels, format.transfer, format.primaries)
        elif plain:
            self._pixels[...] = converted.to_ndarray()
        else:
            for channel, plane in zip((1, 2, 0), converted.planes, strict=True):
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
                self._pixels[..., channel] = rows[:, : plane.width]
        return self._turned()

    def _turned(self) -> np.ndarray:
        pixels, (a, b, c, d) = self._pixels, self._format.turn
        if abs(b) > abs(a):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def full_bt709_to_rgb(planes: np.ndarray) -> np.ndarray:
    """Converts full-range BT.709 planes Y, U, V, uint8 (3, H, W), to uint8 RGB (H, W, 3)."""
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

    frame = VideoFrame.from_ndarray(planes, "yuv444p")
    frame.colorspace, frame.color_range = _BT709, _FULL
    reformatter = VideoReformatter()
    return reformatter.reformat(
        frame, format="gbrp", dst_color_range=_FULL, interpolation=_EXACT | _FAST_BILINEAR, threads=1
    ).to_ndarray()


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels. aspect: width / height of one pixel."""
    if not aspect or not Fraction(1, _STRANGEST) <= aspect <= _STRANGEST:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def _turn(frame: "VideoFrame") -> tuple[int, int, int, int]:
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return a, b, c, d


def _matrix(frame: "VideoFrame") -> int:
    """The colour matrix, from the frame's tag; without one as players guess: BT.709 from 1280 x 720 on, else BT.601."""
    if frame.colorspace == _UNSPECIFIED:
        return _BT709 if frame.width >= 1280 or frame.height >= 720 else _BT601
    return {1: _BT709, 7: _SMPTE240M, 9: _BT2020, 10: _BT2020}.get(frame.colorspace, _BT601)


def _to_sdr(pixels: np.ndarray, out: np.ndarray, transfer: int, primaries: int) -> None:
    """Tone-maps uint16 (H, W, 3) of 12 bits to uint8 `out` of the same shape, row by row to stay in the cache."""
    light, levels = _light(transfer), _levels(transfer in (_PQ, _HLG))
    to_bt709 = np.array(_TO_BT709.get(primaries, np.eye(3)), np.float32).T
    for row, shown in zip(pixels, out, strict=True):
        linear = light[row]
        if transfer == _HLG:  # its system gamma of 1.2 is applied to luminance
            linear *= (linear @ np.array([0.2627, 0.6780, 0.0593], np.float32))[:, None] ** 0.2 * (1000 / _WHITE)
        linear @= to_bt709
        np.clip(linear, 0, _PEAK, out=linear)
        shown[...] = levels[(np.sqrt(linear) * ((_LEVELS - 1) / np.sqrt(_PEAK)) + 0.5).astype(np.int32)]


@cache
def _light(transfer: int) -> np.ndarray:
    """The linear light of each 12-bit level, in units of white; for HLG the scene's light, 0 to 1."""
    signal = np.linspace(0, 1, _LEVELS)
    if transfer == _HLG:  # ITU-R BT.2100
        linear = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    elif transfer == _PQ:  # SMPTE ST 2084
        power = signal ** (32 / 2523)
        linear = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305) * 10000 / _WHITE
    else:
        linear = signal**2.4
    return linear.astype(np.float32)


@cache
def _levels(hdr: bool) -> np.ndarray:
    """The 8-bit level of each square root of light, 0 to that of _PEAK, by the gamma 2.4 of BT.1886.

    HDR: a straight line up to the knee, then a hyperbola that continues in its direction and ends in white.
    """
    light = np.linspace(0, np.sqrt(_PEAK), _LEVELS) ** 2
    if hdr:
        rest, most, above = 1 - _KNEE, _PEAK - _KNEE, np.maximum(light - _KNEE, 0)
        light = np.minimum(light, _KNEE) + above * rest * most / (above * (most - rest) + rest * most)
    return np.round(255 * np.minimum(light, 1) ** (1 / 2.4)).astype(np.uint8)
