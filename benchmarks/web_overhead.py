"""What the page of `mtanimate web` adds to the command: a clip of ten seconds, by both in turn.

    python benchmarks/web_overhead.py [--seconds 10] [--rounds 3] [--port 7861]

The page is asked through its API, as its button does; upload and download count. The command's time is from the
prompt to the finished file. Photograph and driving clip are the demo's (`make demo` installs what they are in), the
clip repeated up to the length.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import requests
from animate_speed import seconds_of
from machine import describe

from mtanimate.video import VideoReader, VideoWriter

TOOL = [sys.executable, "-m", "mtanimate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=7861)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([sys.executable, str(Path(__file__).parents[1] / "docs" / "demo.py"), str(folder)], check=True)
        repeat(folder / "talk.mp4", folder / "long.mp4", options.seconds)
        server = subprocess.Popen([*TOOL, "web", "--port", str(options.port), "--quiet"])
        try:
            measure(folder, f"http://127.0.0.1:{options.port}", options.rounds)
        finally:
            server.terminate()
            server.wait()


def repeat(clip: Path, out: Path, seconds: float) -> None:
    reader = VideoReader(clip)
    frames = np.concatenate([*reader.batches(32)])
    with VideoWriter(out, fps=reader.fps, width=reader.width, height=reader.height) as writer:
        for first in range(0, round(seconds * reader.fps), len(frames)):
            writer.write(frames[: round(seconds * reader.fps) - first])


def measure(folder: Path, address: str, rounds: int) -> None:
    from gradio_client import Client, handle_file

    for _ in range(120):
        try:
            requests.get(address, timeout=30)
            break
        except requests.ConnectionError:
            time.sleep(1)
    client = Client(address, verbose=False, download_files=str(folder / "downloads"))
    face, long = folder / "face.png", folder / "long.mp4"

    def command() -> None:
        given = ["--source", str(face), "--driving", str(long), "--out", str(folder / "out.mp4"), "--overwrite"]
        subprocess.run([*TOOL, "animate", *given, "--quiet"], check=True)

    def page() -> None:
        client.predict(photo=handle_file(face), driving=handle_file(long), api_name="/animate")

    page()  # loads the network
    took: dict[str, list[float]] = {"command": [], "page": []}
    for _ in range(rounds):
        for name, run in (("command", command), ("page", page)):
            took[name].append(seconds_of(run))
            print(f"{name}: {took[name][-1]:.2f} s", flush=True)
    alone, by_page = (statistics.median(times) for times in took.values())
    print(describe())
    print(f"medians: command {alone:.2f} s, page {by_page:.2f} s: {100 * (by_page / alone - 1):+.1f} %")


if __name__ == "__main__":
    main()
