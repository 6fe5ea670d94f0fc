"""Colour profiles as photographs carry them, made by hand, and colours in what they stand for."""

import struct

import numpy as np

SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_D65 = np.array([0.3127 / 0.329, 1, (1 - 0.3127 - 0.329) / 0.329])
_D50 = np.array([0.9642, 1, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_curve(values: np.ndarray) -> np.ndarray:
    """Light of sRGB's numbers, both in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def adobe_curve(values: np.ndarray) -> np.ndarray:
    return values ** (563 / 256)


def profile(primaries, curve) -> bytes:
    """An ICC profile of RGB with these primaries (x, y of red, green, blue), D65 white, and one curve of light."""
    columns = to_d50() @ to_xyz(primaries)
    return _profile(b"RGB ", [(b"rXYZ", columns[:, 0]), (b"gXYZ", columns[:, 1]), (b"bXYZ", columns[:, 2])], curve)


def grey_profile(curve) -> bytes:
    return _profile(b"GRAY", [], curve)


def converted(picture: np.ndarray, primaries, curve) -> np.ndarray:
    """uint8 sRGB -> the same colours as numbers of this kind of RGB, uint8."""
    light = srgb_curve(picture / 255) @ (np.linalg.inv(to_xyz(primaries)) @ to_xyz(SRGB)).T
    steps = np.linspace(0, 1, 1 << 16)
    return np.rint(255 * np.interp(light.clip(0, 1), curve(steps), steps)).astype(np.uint8)


def to_xyz(primaries) -> np.ndarray:
    """RGB's light -> XYZ under D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, _D65)


def to_d50() -> np.ndarray:
    """XYZ under D65 -> XYZ under D50, in which profiles are written."""
    return np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ _D65)) @ _BRADFORD


def ink_profile() -> bytes:
    """An ICC profile of CMYK of which only black shows: L* 100 without it, 0 with all of it."""
    identity = [65536 * (place % 4 == 0) for place in range(9)]
    white, black = (0xFF00, 0x8000, 0x8000), (0, 0x8000, 0x8000)  # L*, a*, b*
    table = b"mft2" + struct.pack(">I4B9i2H", 0, 4, 3, 2, 0, *identity, 2, 2)  # two steps a side
    table += (
        4 * struct.pack(">2H", 0, 65535) + 8 * struct.pack(">6H", *white, *black) + 3 * struct.pack(">2H", 0, 65535)
    )
    return _file(b"prtrCMYKLab ", [(b"A2B0", table), (b"wtpt", _xyz(_D50))])


def _profile(space: bytes, columns, curve) -> bytes:
    table = np.rint(65535 * curve(np.linspace(0, 1, 4096))).astype(">u2").tobytes()
    light = b"curv" + struct.pack(">II", 0, 4096) + table
    curves = [b"kTRC"] if space == b"GRAY" else [b"rTRC", b"gTRC", b"bTRC"]
    tags = [(name, _xyz(values)) for name, values in [(b"wtpt", _D50), *columns]] + [(name, light) for name in curves]
    return _file(b"mntr" + space + b"XYZ ", tags)


def _file(kind: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    """kind: of device, its colours, and what they are given in."""
    tags = [*tags, (b"desc", b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78))]
    index, data = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        index += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">II I12s12x4s", 128 + len(index) + len(data), 0, 0x02400000, kind, b"acsp")
    header += bytes(68 - len(header)) + _fixed(_D50)
    return header + bytes(128 - len(header)) + index + data


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values) -> bytes:
    return struct.pack(">3i", *(round(65536 * value) for value in values))
