"""Pictures of every kind come in as the colours a viewer would see; broken ones are named."""

import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, ExifTags, Image
from profiles import P3, SRGB, profile, srgb_curve

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.video import read_image, write_image
from mtanimate.video.footage import open_footage

GRADIENT = np.add.outer(np.arange(40) * 4, np.arange(60)).astype(np.uint8)  # grey (40, 60), 0 to 215


def _colours(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 40), width=st.integers(1, 40), mode=st.sampled_from(["RGB", "RGBA", "L", "P", "1"]))
def test_any_mode_and_size_survives_a_png(tmp_path: Path, height: int, width: int, mode: str) -> None:
    picture = Image.fromarray(_colours(height, width)).convert(mode)
    picture.save(tmp_path / "a.png")
    array = read_image(tmp_path / "a.png")
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, np.asarray(picture.convert("RGB")))
    write_image(tmp_path / "b.png", array)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), array)


def test_content_and_not_the_name_says_the_format(tmp_path: Path) -> None:
    Image.fromarray(_colours()).save(tmp_path / "photo", format="PNG")
    np.testing.assert_array_equal(read_image(str(tmp_path / "photo")), _colours())


@pytest.mark.parametrize("format", ["EPS", "TGA", "PCX", "PPM", "ICO", "SGI"])
def test_no_other_format_is_read_whatever_its_name(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an EPS, Pillow would start Ghostscript, a whole programming language."""
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: started.append(given))
    file = tmp_path / "face.png"
    Image.fromarray(_colours()).save(file, format=format)
    for read in (read_image, open_footage):
        with pytest.raises(InputError, match=r"face\.png is not a picture"):
            read(file)
    assert started == []


def test_a_number_in_a_name_is_part_of_the_name(tmp_path: Path) -> None:
    """ffmpeg would take `%03d` for a series of pictures."""
    for name in ("face%03d.png", "face001.png", "face002.png"):
        write_image(tmp_path / name, _colours() if "%" in name else 0 * _colours())
    np.testing.assert_array_equal(read_image(tmp_path / "face%03d.png"), _colours())
    np.testing.assert_array_equal(open_footage(tmp_path / "face%03d.png").frames([0])[0], _colours())
    assert open_footage(tmp_path / "face%03d.png").frame_count == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255, 0, 0
    upright[0, 5] = 0, 255, 0
    # How the camera stores a scene, per the EXIF standard: what undoes the orientation's turn and flip.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    deep = GRADIENT.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / name)
    array = read_image(tmp_path / name)
    np.testing.assert_array_equal(array, np.repeat(GRADIENT[..., None], 3, axis=2))


def test_white_of_16_bits_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((5, 5), 65535, np.uint16)).save(tmp_path / "white.png")
    assert read_image(tmp_path / "white.png").min() == 255


def test_colours_of_16_bits(tmp_path: Path, run_ffmpeg) -> None:
    raw = (_colours(8, 8).astype(">u2") * 257).tobytes()
    (tmp_path / "raw").write_bytes(raw)
    size = ["-f", "rawvideo", "-pixel_format", "rgb48be", "-video_size", "8x8"]
    run_ffmpeg(*size, "-i", tmp_path / "raw", tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), _colours(8, 8))


@pytest.mark.parametrize("scale", [1 / 255, 1, 257])
def test_float_ranges(tmp_path: Path, scale: float) -> None:
    values = GRADIENT.astype(np.float32)
    values[0, 0] = 255
    Image.fromarray(values * np.float32(scale)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 1], values.astype(np.uint8))


def test_32_bit_integers_within_16_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT.astype(np.int32) * 257).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], GRADIENT)


@pytest.mark.parametrize("value", [np.nan, -3.0, 1e6])
def test_values_of_no_known_range_are_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.full((4, 4), value, np.float32)).save(tmp_path / "a.tif")
    _refused(tmp_path / "a.tif")


def test_cmyk_red_is_red(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 0), (51, 204)])
def test_transparency_is_laid_over_white(tmp_path: Path, alpha: int, expected: int) -> None:
    Image.new("RGBA", (3, 3), (0, 0, 0, alpha)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == expected).all()


def test_transparent_colour_of_a_palette(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [40, 50, 60]]]


def _refused(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_picture(tmp_path: Path) -> None:
    _refused(tmp_path / "missing.png")
    _refused(tmp_path)
    (tmp_path / "empty.png").touch()
    _refused(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    _refused(tmp_path / "text.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tif"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_cut_off_picture_is_refused(tmp_path: Path, cut, name: str, keep: float) -> None:
    Image.fromarray(_colours(64, 64)).save(tmp_path / name)
    _refused(cut(tmp_path / name, keep))


@pytest.mark.filterwarnings("error")
def test_a_large_photo_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (400, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 300 - 1)
    assert read_image(tmp_path / "a.png").shape == (300, 400, 3)


def test_writing_replaces_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_image(path, _colours())
    before = path.read_bytes()

    def break_off(self: Image.Image, file: Path) -> None:
        file.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", break_off)
    with pytest.raises(MTAnimateError, match="No space left"):
        write_image(path, _colours(5, 5))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_where_a_picture_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "a.mp4", tmp_path / "none" / "a.png"):
        with pytest.raises(InputError, match=str(path)):
            write_image(path, _colours())
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "a.png", _colours().astype(float))
    assert not list(tmp_path.iterdir())


TEXT = {"Title": "Zoë's ✓", "Comment": "made by hand"}


def test_text_is_kept_in_a_png(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", _colours(), TEXT)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info == TEXT
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), _colours())


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_text_is_the_description_in_jpeg_and_webp(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, _colours(), TEXT)
    assert "Title: Zoë's ✓\nComment: made by hand".encode() in (tmp_path / name).read_bytes()
    with Image.open(tmp_path / name) as picture:
        assert ExifTags.Base.ImageDescription in picture.getexif()
    assert read_image(tmp_path / name).shape == (40, 60, 3)


def test_formats_without_a_place_for_text(tmp_path: Path) -> None:
    write_image(tmp_path / "a.bmp", _colours(), TEXT)
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp"), _colours())


def _chunk(name: bytes, data: bytes, checksum: int = 0) -> bytes:
    """Of a PNG. checksum: what it is wrong by."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", (zlib.crc32(name + data) + checksum) % 2**32)


WIDE, SRGB_PROFILE = (profile(primaries, srgb_curve) for primaries in (P3, SRGB))
BESIDE = {
    "text of 3 MB": _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))),
    "text of 100 MB": _chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(100 << 20))),
    "text with a wrong checksum": _chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "text of an unknown kind": _chunk(b"zTXt", b"Comment\0\7hello"),
    "EXIF of noise": _chunk(b"eXIf", b"hello, hello"),
    "EXIF cut off": _chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff\x01\x12"),
    "a profile of an unknown kind": _chunk(b"iCCP", b"P3\0\7hello"),
    "a profile with a wrong checksum": _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB_PROFILE), checksum=1),
    "an empty profile": _chunk(b"iCCP", b""),
    "a gamma cut off": _chunk(b"gAMA", b"\0"),
    "a size cut off": _chunk(b"pHYs", b"\0"),
    "a profile of noise": _chunk(b"iCCP", b"P3\0\0hello"),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_a_picture_does_not_make_it_unreadable(tmp_path: Path, what: str, last: bool) -> None:
    Image.fromarray(_colours()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    place = len(content) - 12 if last else 33  # before IEND, or after IHDR
    (tmp_path / "a.png").write_bytes(content[:place] + BESIDE[what] + content[place:])
    said: list[str] = []
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", said.append), _colours())
    assert len(said) <= 1
    assert all(str(tmp_path / "a.png") in line for line in said)


def test_a_long_profile_is_used(tmp_path: Path) -> None:
    """Pillow by itself takes a megabyte."""
    Image.fromarray(_colours()).save(tmp_path / "short.png", icc_profile=WIDE)
    Image.fromarray(_colours()).save(tmp_path / "long.png", icc_profile=WIDE + bytes(3 << 20))
    np.testing.assert_array_equal(read_image(tmp_path / "long.png"), read_image(tmp_path / "short.png"))
    assert (read_image(tmp_path / "long.png") != _colours()).any()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # of Pillow's, when it writes AVIF
@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png", "a.avif", "a.heic"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=60))
def test_no_exif_makes_a_picture_unreadable(tmp_path: Path, name: str, junk: bytes) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(_colours()).save(tmp_path / f"plain-{name}")
    Image.fromarray(_colours()).save(tmp_path / name, exif=b"Exif\0\0MM\0*\0\0\0\x08" + junk)
    array = read_image(tmp_path / name)
    assert sorted(array.shape) == [3, 40, 60]
    if array.shape == (40, 60, 3) and b"\x01\x12" not in junk:  # the tag of the orientation
        np.testing.assert_array_equal(array, read_image(tmp_path / f"plain-{name}"))


@pytest.mark.parametrize("name", ["photo.heic", "PHOTO.HEIC", "photo.jpg"])
def test_heic_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    heif = pytest.importorskip("pillow_heif")
    smooth = np.repeat(GRADIENT[..., None], 3, axis=2)
    heif.from_pillow(Image.fromarray(smooth)).save(tmp_path / name, quality=90)
    assert np.abs(read_image(tmp_path / name).astype(int) - smooth).mean() < 2


def test_heic_without_its_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(_colours())).save(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=re.escape("mtanimate[heic]")):
        read_image(tmp_path / "a.heic")
