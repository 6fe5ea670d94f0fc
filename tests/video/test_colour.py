"""Colours come out as they went in, whatever matrix, range and tags a file has; HDR comes out as SDR."""

from pathlib import Path

import av
import numpy as np
import pytest

from mtanimate.video import VideoReader, write_image

SIDE = 32  # of a patch of one colour
PRIMARIES_709 = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # to XYZ
PRIMARIES_2020 = np.array([[0.6370, 0.1446, 0.1689], [0.2627, 0.6780, 0.0593], [0.0, 0.0281, 1.0610]])


def patches(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 (height // SIDE, width // SIDE, 3): greys in the first row, then any colour."""
    colours = np.random.default_rng(seed).integers(0, 256, (height // SIDE, width // SIDE, 3))
    colours[0] = np.linspace(0, 255, width // SIDE).round()[:, None]
    return colours.astype(np.uint8)


def enlarged(colours: np.ndarray) -> np.ndarray:
    return colours.repeat(SIDE, axis=0).repeat(SIDE, axis=1)


def seen(path: Path) -> np.ndarray:
    """The colour of each patch in the first frame, away from its edges: float (rows, columns, 3)."""
    frame = VideoReader(path).frames([0])[0].astype(float)
    rows, columns = frame.shape[0] // SIDE, frame.shape[1] // SIDE
    parts = frame.reshape(rows, SIDE, columns, SIDE, 3)
    return parts[:, 10:-10, :, 10:-10].mean(axis=(1, 3))


def assert_same(found: np.ndarray, colours: np.ndarray) -> None:
    away = np.abs(found - colours)
    assert away.max() < 2.2  # 8 bits of luma and chroma and the encoder leave about that
    assert away.mean() < 0.8


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("limits", ["tv", "pc"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("size", [(640, 480), (1280, 704), (704, 1280)])
def test_round_trips(run_ffmpeg, tmp_path: Path, size, matrix: str, limits: str, tagged: bool) -> None:
    if not tagged and (matrix == "bt709") != (max(size) >= 720):
        pytest.skip("nothing could tell")
    colours = patches(*size)
    write_image(tmp_path / "a.png", enlarged(colours))
    pixels = "yuv420p" if limits == "tv" else "yuvj420p"  # the range is the stream's own, tagged or not
    chain = f"scale=out_color_matrix={matrix}:out_range={limits}:flags=accurate_rnd+full_chroma_int,format={pixels}"
    space = {"bt601": "smpte170m", "bt709": "bt709"}[matrix] if tagged else "unknown"
    chain += f",setparams=colorspace={space}:color_primaries={space}:color_trc={space}"
    run_ffmpeg("-i", tmp_path / "a.png", "-vf", chain, "-c:v", "libx264", "-qp", "2", tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == {"unknown": 2, "smpte170m": 6, "bt709": 1}[space]
    assert_same(seen(tmp_path / "a.mp4"), colours)


def test_cropped_hd_without_tags(run_ffmpeg, tmp_path: Path) -> None:
    """1280 x 544, as films are."""
    colours = patches(1280, 544)
    write_image(tmp_path / "a.png", enlarged(colours))
    chain = (
        "scale=out_color_matrix=bt709:flags=accurate_rnd+full_chroma_int,format=yuv420p,setparams=colorspace=unknown"
    )
    run_ffmpeg("-i", tmp_path / "a.png", "-vf", chain, "-c:v", "libx264", "-qp", "2", tmp_path / "a.mp4")
    assert_same(seen(tmp_path / "a.mp4"), colours)


def hlg(light: np.ndarray) -> np.ndarray:
    """BT.2020 light as the screen shows it, in cd/m², -> signal of ITU-R BT.2100 HLG for a screen of 1000 cd/m²."""
    luminance = (light @ PRIMARIES_2020[1])[..., None] / 1000
    scene = light / 1000 * np.maximum(luminance, 1e-9) ** (1 / 1.2 - 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def pq(light: np.ndarray) -> np.ndarray:
    power = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def gamma(light: np.ndarray) -> np.ndarray:
    return np.clip(light / 100, 0, 1) ** (1 / 2.4)


H273 = {"arib-std-b67": 18, "smpte2084": 16, "bt2020-10": 14}
KINDS = {"arib-std-b67": hlg, "smpte2084": pq, "bt2020-10": gamma}


def encoded(run_ffmpeg, path: Path, light: np.ndarray, transfer: str) -> None:
    """light: BT.2020, in cd/m², of each patch."""
    signal = (KINDS[transfer](enlarged(light)) * 65535).round().astype("<u2")
    raw = path.with_suffix(".raw")
    raw.write_bytes(signal.tobytes())
    tags = f"transfer_characteristics={H273[transfer]}:colour_primaries=9:matrix_coefficients=9"
    run_ffmpeg(
        *("-f", "rawvideo", "-pixel_format", "rgb48le", "-video_size", f"{signal.shape[1]}x{signal.shape[0]}"),
        *("-i", raw, "-vf", "scale=out_color_matrix=bt2020:out_range=tv:flags=accurate_rnd+full_chroma_int"),
        *("-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "qp=1:log-level=error"),
        *("-bsf:v", f"hevc_metadata={tags}"),
        path,
    )


@pytest.mark.parametrize("transfer", KINDS)
def test_what_an_sdr_screen_can_show_is_as_it_was(run_ffmpeg, tmp_path: Path, transfer: str) -> None:
    """Light up to 55 of the 100 cd/m² of an SDR screen, in colours of BT.709."""
    colours = patches(256, 192)
    light = (colours / 255) ** 2.4 * 55 @ (np.linalg.inv(PRIMARIES_2020) @ PRIMARIES_709).T
    encoded(run_ffmpeg, tmp_path / "a.mp4", np.maximum(light, 0), transfer)
    expected = 255 * ((colours / 255) ** 2.4 * 0.55) ** (1 / 2.4)
    away = np.abs(seen(tmp_path / "a.mp4") - expected)
    assert away.mean() < 1.5
    assert np.percentile(away[expected.min(axis=-1) > 16], 95) < 4  # the signal's ten bits are coarse in the dark
    assert bool(VideoReader(tmp_path / "a.mp4").note) == (transfer != "bt2020-10")


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_brighter_light_stays_apart(run_ffmpeg, tmp_path: Path, transfer: str) -> None:
    light = np.broadcast_to(np.array([50, 80, 100, 150, 200, 300, 400, 990.0])[None, :, None], (2, 8, 3))
    encoded(run_ffmpeg, tmp_path / "a.mp4", light, transfer)
    greys = seen(tmp_path / "a.mp4")[0, :, 0]
    assert (np.diff(greys) > 1).all()
    assert greys[-1] > 253


def test_ordinary_video_has_no_note(make_video) -> None:
    assert not VideoReader(make_video("a.mp4", options=("-pix_fmt", "yuv420p"))).note
