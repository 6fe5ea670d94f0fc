"""H.264 in pairs of fields, as camcorders store it and no encoder at hand does: grey, uncompressed."""

from pathlib import Path


def _number(value: int) -> str:
    """Exp-Golomb: ue(v)."""
    binary = f"{value + 1:b}"
    return "0" * (len(binary) - 1) + binary


def _unit(kind: int, bits: str) -> bytes:
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\0\1" + bytes([kind]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _sequence(side: int, rate: int) -> bytes:
    """Main profile, fields allowed. rate: fields a second."""
    bits = f"{77:08b}{0:08b}{30:08b}" + _number(0) + _number(0) + _number(0) + _number(4) + _number(1) + "0"
    bits += _number(side // 16 - 1) + _number(side // 32 - 1) + "0" + "0" + "1" + "0"
    bits += "1" + "0000" + "1" + f"{1:032b}{rate:032b}" + "1" + "0000"  # how long a field is
    return _unit(0x67, bits)


def _field(grey: int, side: int, bottom: bool, count: int) -> bytes:
    """All macroblocks as they are (I_PCM)."""
    bits = _number(0) + _number(7) + _number(0) + "0000" + "1" + str(int(bottom))
    bits += ("" if bottom else _number(count % 2)) + f"{int(bottom):08b}" + ("0" if bottom else "00")
    bits += _number(0) + _number(1)
    samples = "".join(f"{value:08b}" for value in [grey] * 256 + [128] * 128)
    for _ in range(side * side // 512):
        bits += _number(25)
        bits += "0" * (-len(bits) % 8) + samples
    return _unit(0x61 if bottom else 0x65, bits)


def write_fields(path: Path, greys: list[int], side: int = 64, rate: int = 50) -> None:
    """A picture of one grey (luma 50 to 200: no start code comes about) for each: rate / 2 a second, as raw H.264."""
    start = _sequence(side, rate) + _unit(0x68, _number(0) * 2 + "00" + _number(0) * 3 + "000" + _number(0) * 3 + "100")
    stream = b""
    for count, grey in enumerate(greys):
        stream += b"\0\0\0\1\x09\xf0" + start + _field(grey, side, False, count)
        stream += b"\0\0\0\1\x09\xf0" + _field(grey, side, True, count)
    path.write_bytes(stream)
