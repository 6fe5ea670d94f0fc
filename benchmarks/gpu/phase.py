"""What every phase has: a device, networks, a clock, and a place for what it finds."""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from engine import random_network
from machine import describe
from torch import Tensor

from gpu.results import Results
from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import resolve
from mtanimate.config import load_file, load_preset
from mtanimate.devices import describe_device
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import square_frames
from mtanimate.models.animator import Animator
from mtanimate.video import read_image
from mtanimate.video.ffmpeg import FFmpeg

PORTRAIT = Path(__file__).parents[2] / "mtanimate" / "pictures" / "portrait.jpg"


class Phase:
    """name: of the phase. out: the folder of results. recipe: what on_gpu.yaml says for this run, `settings` and
    `init`. data: a pack to train on. temp: a folder that goes when all is done. ends: of `time.time()`. rehearsing: on
    the CPU.

    Raises InputError where there is no GPU.
    """

    def __init__(
        self, name: str, out: str, recipe: dict[str, Any], data: str | None, temp: str, ends: float, rehearsing: bool
    ) -> None:
        self.name, self.recipe, self.ends, self.rehearsing = name, recipe, ends, rehearsing
        self.data = Path(data) if data else None
        self.temp = Path(temp) / name
        self.temp.mkdir()
        self.results = Results(Path(out))
        if not rehearsing and not torch.cuda.is_available():
            raise InputError(f"no NVIDIA GPU: PyTorch {torch.__version__} sees none")
        self.device = torch.device("cpu" if rehearsing else "cuda")
        self.results.put(f"{describe()}; {describe_device(self.device)}", "machine")

    @property
    def seconds_left(self) -> float:
        return self.ends - time.time()

    def train_command(self, dataset: str | Path, clips: Path, out: Path, *options: str) -> list[str]:
        """`mtanimate train`. dataset: as `--dataset` takes it. clips: the videos."""
        command = [sys.executable, "-m", "mtanimate", "train", "--dataset", str(dataset), "--data", str(clips)]
        return [*command, "--out", str(out), "--device", self.device.type, *options]

    def settings(self) -> Path:
        """The recipe's, as a file that `mtanimate train --dataset` takes."""
        path = self.temp / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.recipe["settings"]), "utf-8")
        return path

    def networks(self) -> dict[str, Animator]:
        """On the CPU: the full-size network with random weights and the checkpoint that ships; or the rehearsal's."""
        if self.rehearsing:
            return {"rehearsal": random_network(load_file(self.settings()).model)}
        return {"vox": random_network(load_preset("vox").model), "small": read_checkpoint(resolve("default")).animator}

    def put(self, value: Any, *keys: str) -> None:
        print(f"{self.name}, {', '.join(keys)}: {value}", flush=True)
        self.results.put(value, "phases", self.name, "results", *keys)

    def attempt(self, measure: Callable[[], Any], *keys: str, seconds: float = 3) -> None:
        """Put what `measure` returns there, or why it fails. seconds: it is left out where fewer are left. It is cut
        off shortly before the phase would be killed."""
        if self.seconds_left < seconds:
            self._say(f"left out: {self.seconds_left:.0f} s were left", "left_out", *keys)
            return
        try:
            with cut_off(self.seconds_left - 2):
                found = measure()
            self.put(found, *keys)
        except CutOff as error:
            self._say(str(error), "left_out", *keys)
        except Exception as error:  # whatever a GPU, its driver or its memory refuses: the others are measured
            traceback.print_exc()
            self.fail(reason(error), *keys)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def fail(self, line: str, *keys: str) -> None:
        self._say(line, "failures", *keys)

    def cannot(self, line: str, *keys: str) -> None:
        """In a rehearsal: what only a GPU can."""
        self._say(line, "reasons", *keys)

    def _say(self, line: str, where: str, *keys: str) -> None:
        key = ", ".join(keys) or self.name
        print(f"{self.name}, {key}: {line}", flush=True)
        self.results.put(line, "phases", self.name, where, key)


class CutOff(Exception):
    """There is no more time."""


@contextmanager
def cut_off(seconds: float) -> Iterator[None]:
    """Raises CutOff in the block after so many seconds, but one at least."""
    seconds = max(seconds, 1)

    def end(number: int, frame: FrameType | None) -> None:
        raise CutOff(f"cut off after {seconds:.0f} s, when the phase's time was over")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_phase(given: dict[str, Any]) -> int:
    """In a process of its own. given: the arguments of `Phase`. Returns the exit code."""
    name, results = given["name"], Results(Path(given["out"]))
    try:
        import_module(f"gpu.{name}_phase").run(Phase(**given))
    except Exception as error:  # the phase fails, and says why
        traceback.print_exc()
        results.put(reason(error), "phases", name, "failures", name)
        return 1
    return 0


def reason(error: Exception) -> str:
    """In one line."""
    line = " ".join(str(error).split())[:300]
    return line if isinstance(error, (MTAnimateError, ValueError)) else f"{type(error).__name__}: {line}"


def portrait_clip(count: int, side: int) -> Tensor:
    """uint8 (T, 3, R, R): a window that wanders over a portrait."""
    picture = read_image(PORTRAIT)
    room = min(picture.shape[:2]) // 8
    size = min(picture.shape[:2]) - 2 * room
    angles = torch.linspace(0, 6, count).tolist()
    corners = [(round(room * (1 + torch.tensor(a).sin().item())), round(room * a / 6)) for a in angles]
    return torch.cat([square_frames(picture[None, y : y + size, x : x + size], side) for x, y in corners])


def make_clip(path: Path, size: str, seconds: float, *options: str) -> Path:
    """A test picture that moves, `WxH`, 25 frames a second. options: of ffmpeg's, for the result. Raises
    MTAnimateError where ffmpeg cannot."""
    made = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}"]
    ffmpeg = FFmpeg(["-nostdin", "-y", *made, "-pix_fmt", "yuv420p", *options, str(path)])
    if ffmpeg.finish() != 0:
        raise MTAnimateError(f"ffmpeg cannot make {path.name}: {ffmpeg.reason()}")
    return path
