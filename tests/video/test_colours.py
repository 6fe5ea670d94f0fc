"""A photograph's colour profile is followed: its colours are those of the same picture in sRGB."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from moving import write
from PIL import Image, ImageCms
from profiles import ADOBE, P3, SRGB, adobe_curve, converted, grey_profile, ink_profile, profile, srgb_curve

from mtanimate.video import Sound, read_image
from mtanimate.video.encoding import CODECS
from mtanimate.video.streams import StreamWriter

KINDS = {"p3": (P3, srgb_curve), "adobe": (ADOBE, adobe_curve), "srgb": (SRGB, srgb_curve)}


def _photo() -> np.ndarray:
    """Soft and not too bright colours, uint8 (64, 96, 3) in sRGB, as photographs have them."""
    y, x = np.mgrid[:64, :96]
    planes = [128 + 90 * np.sin(x / 17 + phase) * np.cos(y / 13 + phase / 2) for phase in (0, 0.7, 1.5)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _never(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.avif", "a.heic", "a.jpg"])
def test_a_wide_gamut_photo_has_the_colours_of_the_same_in_srgb(tmp_path: Path, kind: str, name: str) -> None:
    options = {"quality": 95, "icc_profile": profile(*KINDS[kind])}
    if name.endswith((".jpg", ".avif")):
        options["subsampling"] = "4:4:4"
    if name == "a.webp":
        options["lossless"] = True
    picture = Image.fromarray(converted(_photo(), *KINDS[kind]))
    if name == "a.heic":
        pytest.importorskip("pillow_heif").from_pillow(picture).save(
            tmp_path / name, quality=-1, chroma=444, icc_profile=profile(*KINDS[kind])
        )
    else:
        picture.save(tmp_path / name, **options)
    off = np.abs(read_image(tmp_path / name, _never).astype(int) - _photo())
    lossless = not name.endswith((".jpg", ".avif", ".heic"))
    assert off.mean() <= 1.5
    assert off.max() <= (1.5 if lossless else 8)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA"])
def test_a_profile_of_rgb_fits_every_mode(tmp_path: Path, mode: str) -> None:
    plain = Image.fromarray(_photo()).convert(mode)
    if "A" in mode:
        plain.putalpha(128)
    plain.save(tmp_path / "plain.png")
    plain.save(tmp_path / "a.png", icc_profile=profile(SRGB, srgb_curve))
    off = np.abs(read_image(tmp_path / "a.png", _never).astype(int) - read_image(tmp_path / "plain.png"))
    assert off.max() <= 1


@pytest.mark.parametrize("deep", [False, True])
def test_a_profile_of_grey(tmp_path: Path, deep: bool) -> None:
    light = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (8, 1))
    stored = light.astype(np.uint16) * 257 if deep else light
    Image.fromarray(stored).save(tmp_path / "a.png", icc_profile=grey_profile(lambda values: values**1.8))
    steps = np.linspace(0, 1, 1 << 16)
    right = 255 * np.interp((light / 255) ** 1.8, srgb_curve(steps), steps)
    array = read_image(tmp_path / "a.png", _never)
    assert np.abs(array[..., 0] - right).max() <= 1.5
    assert (array == array[..., :1]).all()


def test_transparency_is_kept_beside_a_profile(tmp_path: Path) -> None:
    picture = Image.fromarray(converted(_photo(), *KINDS["p3"]))
    picture.putalpha(Image.fromarray(np.tile([0, 255], (64, 48)).astype(np.uint8)))
    picture.save(tmp_path / "a.png", icc_profile=profile(*KINDS["p3"]))
    array = read_image(tmp_path / "a.png", _never).astype(int)
    assert (array[:, ::2] == 255).all()
    assert np.abs(array[:, 1::2] - _photo()[:, 1::2]).max() <= 2


@pytest.mark.parametrize("given", ["broken", "short", "grey", "lab"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_profile_that_cannot_be_used_is_said_and_left_out(tmp_path: Path, given: str, name: str) -> None:
    whole = profile(P3, srgb_curve)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    kinds = {"broken": b"no profile", "short": whole[:200], "grey": grey_profile(srgb_curve), "lab": lab}
    Image.fromarray(_photo()).save(tmp_path / name, icc_profile=kinds[given], quality=95)
    Image.fromarray(_photo()).save(tmp_path / f"plain-{name}", quality=95)
    said: list[str] = []
    np.testing.assert_array_equal(read_image(tmp_path / name, said.append), read_image(tmp_path / f"plain-{name}"))
    assert len(said) == 1
    assert str(tmp_path / name) in said[0]


def test_cmyk_with_a_profile_of_rgb_is_read_as_without(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    picture.save(tmp_path / "a.jpg", quality=95, icc_profile=profile(P3, srgb_curve))
    said: list[str] = []
    assert np.abs(read_image(tmp_path / "a.jpg", said.append).astype(int) - [255, 0, 0]).max() <= 3
    assert len(said) == 1


def test_cmyk_is_read_by_its_profile(tmp_path: Path) -> None:
    """Half of the black ink is L* 50, which is 119; without the profile it would be 127."""
    Image.new("CMYK", (8, 8), (0, 0, 0, 128)).save(tmp_path / "a.tif", icc_profile=ink_profile())
    assert np.abs(read_image(tmp_path / "a.tif", _never).astype(int) - 119).max() <= 2


PATCHES = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
TAGGED = ["h264", "h265", "vp9", "av1", "prores"]
SD, HD = 16, 192  # sides of the patches in 96 x 64 and in 1152 x 768


def _by_hand(frame: av.VideoFrame) -> np.ndarray:
    """BT.709 in limited range -> RGB in [0, 255], (H/2, W/2, 3): of each two by two pixels, the first."""
    if frame.format.name == "yuv422p10le":
        y, u, v = (plane / 4 for plane in _planes(frame, "<u2"))
        u, v = u[::2], v[::2]
    else:
        y, u, v = _planes(frame, "u1")
    y, u, v = (y[::2, ::2] - 16.0) / 219, (u - 128.0) / 224, (v - 128.0) / 224
    red, blue = y + 1.5748 * v, y + 1.8556 * u
    return 255 * np.stack([red, (y - 0.2126 * red - 0.0722 * blue) / 0.7152, blue], axis=-1).clip(0, 1)


def _planes(frame: av.VideoFrame, kind: str) -> list[np.ndarray]:
    return [np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]


@pytest.mark.parametrize(
    ("codec", "suffix", "patch"),
    [(codec, suffix, SD) for codec in TAGGED for suffix in CODECS[codec].containers if suffix != ".m4v"]
    + [(codec, CODECS[codec].containers[0], HD) for codec in TAGGED],
)
def test_the_four_tags_arrive_and_the_pixels_are_what_they_say(
    make_video, tmp_path: Path, codec: str, suffix: str, patch: int
) -> None:
    out = tmp_path / f"a{suffix}"
    frames = np.repeat(np.kron(PATCHES, np.ones((patch, patch, 1), np.uint8))[None], 2, axis=0)
    sound = Sound(make_video("in.mp4", sound=1)) if patch == SD else None  # which is added in a step of its own
    write(out, frames, codec=codec, crf=None if codec == "prores" else 5, sound=sound)
    with av.open(out) as container:
        (stream,) = container.streams.video
        frame = next(container.decode(stream))
        for tagged in (stream.codec_context, frame):
            tags = (tagged.color_range, tagged.colorspace, tagged.color_primaries, tagged.color_trc)
            assert tags == (1, 1, 1, 1)  # limited range, and BT.709 three times
        middles = _by_hand(frame)[patch // 4 :: patch // 2, patch // 4 :: patch // 2]
    assert np.abs(middles - PATCHES).max() <= 1.5


@pytest.mark.parametrize("size", [96, 1152])
def test_what_goes_to_standard_output_is_tagged_too(tmp_path: Path, size: int) -> None:
    out = os.open(tmp_path / "a.mkv", os.O_WRONLY | os.O_CREAT)
    with StreamWriter(fps=Fraction(25), width=size, height=64, stdout=out) as writer:
        writer.write(np.full((3, 64, size, 3), PATCHES[0, 0], np.uint8))
    os.close(out)
    with av.open(tmp_path / "a.mkv") as container:
        frame = next(container.decode(video=0))
        assert (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
        assert np.abs(_by_hand(frame)[8:-8, 8:-8] - PATCHES[0, 0]).max() <= 1.5
