"""A photograph's colour profile is followed: its colours are those of the same picture in sRGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from profiles import ADOBE, P3, SRGB, adobe_curve, converted, grey_profile, ink_profile, profile, srgb_curve

from mtanimate.video import read_image

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
