"""Videos made on the fly by the ffmpeg program that the package itself uses."""

import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest

MakeVideo = Callable[..., Path]


def _run_ffmpeg(*arguments: str | Path) -> bytes:
    """Runs ffmpeg with one thread and returns its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    return subprocess.run([*command, *arguments], check=True, capture_output=True).stdout


@pytest.fixture
def run_ffmpeg() -> Callable[..., bytes]:
    """run_ffmpeg(*arguments) -> standard output."""
    return _run_ffmpeg


@pytest.fixture
def stream_hash() -> Callable[[Path, str], str]:
    """stream_hash(path, "a" or "v") -> a hash of that stream's packets, as they lie in the file."""

    def of(path: Path, stream: str) -> str:
        return _run_ffmpeg("-i", path, "-map", f"0:{stream}:0", "-c", "copy", "-f", "hash", "-").decode()

    return of


@pytest.fixture
def packet_times() -> Callable[[Path, str], list[tuple[float, float]]]:
    """packet_times(path, "a" or "v") -> start and end, in seconds, of each packet of that stream, sorted."""

    def of(path: Path, stream: str) -> list[tuple[float, float]]:
        text = _run_ffmpeg("-i", path, "-map", f"0:{stream}:0", "-c", "copy", "-f", "framecrc", "-").decode()
        tick = next(Fraction(line[7:].strip()) for line in text.splitlines() if line.startswith("#tb"))
        rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
        return sorted((float(int(row[2]) * tick), float((int(row[2]) + int(row[3])) * tick)) for row in rows)

    return of


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """make_video(name, seconds=1, rate="25", size="64x48", sound=None, options=()) -> the file.

    A moving test picture, with a tone of `sound` seconds if given. options: more of ffmpeg's, for the output.
    """

    def make(
        name: str,
        seconds: float = 1,
        rate: str = "25",
        size: str = "64x48",
        sound: float | None = None,
        options: tuple[str, ...] = (),
    ) -> Path:
        path = tmp_path / name
        inputs = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]
        if sound is not None:
            inputs += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={sound}"]
        _run_ffmpeg(*inputs, "-threads", "1", *options, path)
        return path

    return make


@pytest.fixture
def cut() -> Callable[..., Path]:
    """cut(path, keep=0.6) -> a copy of a file of which only the first part is kept."""

    def cut_off(path: Path, keep: float = 0.6) -> Path:
        content = path.read_bytes()
        shorter = path.with_name("cut_" + path.name)
        shorter.write_bytes(content[: int(len(content) * keep)])
        return shorter

    return cut_off


@pytest.fixture
def ffmpeg_says() -> Callable[[Path], str]:
    """ffmpeg_says(path) -> its description of the file's streams."""

    def of(path: Path) -> str:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", path]
        return subprocess.run(command, check=False, capture_output=True).stderr.decode()

    return of


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)
