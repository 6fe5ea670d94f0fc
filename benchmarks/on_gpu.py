"""One command for a quarter of an hour on a GPU, without a network: it trains, tests and measures.

    python benchmarks/on_gpu.py carry --out FOLDER [--data PACK]            # before, with a network: what travels
    python benchmarks/on_gpu.py --minutes 12 --out OUT --wheels FOLDER/wheels [--data FOLDER/pack]      # on the GPU
    python benchmarks/on_gpu.py join OUT --out checkpoint.safetensors [--evaluate VIDEOS]       # after, anywhere

Five phases, each in a process of its own within its share of the minutes; one that fails says why in a line, and the
others run. What it takes: Python 3.12, PyTorch with CUDA, and what pyproject.toml names, of which the missing comes as
wheels.

train: two thirds of the minutes, on the recipe in on_gpu.yaml (--recipe: another file).
test: the tests that need a GPU; 20 steps of training, resumed, compiled.
parity: pictures and keypoints of every precision against the CPU's float32.
speed: the networks alone and from file to file, beside the field's way.
decode: decord on the GPU against ffmpeg through a pipe.

OUT gets `results.json` and `log.txt`, written as it goes, and the weights of the training in parts of less than 16 MiB:
at most eight files. --rehearse: everything on the CPU, tiny, and a reason for what only a GPU can. Exit code 1 where a
phase failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from gpu.results import Results, joined

HERE = Path(__file__).resolve().parent
# Name -> its part of the minutes that are left when it begins, and the seconds below which it is not begun.
PHASES = {"train": (30.0, 60), "test": (4.0, 20), "parity": (2.0, 15), "speed": (4.0, 20), "decode": (1.5, 10)}
ENDING = 5  # seconds that are kept for the last words


def main() -> int:
    if sys.argv[1:2] == ["phase"]:
        from gpu.phase import run_phase

        return run_phase(json.loads(sys.argv[2]))
    if sys.argv[1:2] == ["join"]:
        return join(sys.argv[2:])
    if sys.argv[1:2] == ["carry"]:
        from gpu.carrying import carry

        return carry(sys.argv[2:])
    return run(sys.argv[1:])


def run(arguments: list[str]) -> int:
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="from this command's start to its end")
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels, for this run alone")
    parser.add_argument("--data", type=Path, help="what mtanimate data pack made")
    parser.add_argument("--recipe", type=Path, default=HERE / "on_gpu.yaml")
    options = parser.parse_args(arguments)
    phases = options.phases.split(",")
    unknown = [name for name in phases if name not in PHASES]
    if unknown:
        parser.error(f"--phases {unknown[0]}: there are {', '.join(PHASES)}")
    for name, path in (("--wheels", options.wheels), ("--data", options.data), ("--recipe", options.recipe)):
        if path is not None and not path.exists():
            parser.error(f"{name} {path}: not there")
    try:
        recipe = yaml.safe_load(options.recipe.read_text("utf-8"))["rehearsal" if options.rehearse else "recipe"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        parser.error(f"--recipe {options.recipe}: no YAML file with a recipe and a rehearsal, as on_gpu.yaml is")
    options.out.mkdir(parents=True, exist_ok=True)
    results = Results(options.out.resolve())
    if results.file.exists():
        parser.error(f"--out {options.out} holds results already: choose another folder")
    results.put({"minutes": options.minutes, "rehearsal": options.rehearse, "began": time.ctime(began)}, "run")
    # Ended from outside, what runs is ended too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="on_gpu-") as temp:
        environment = prepare(options.wheels, Path(temp), results)
        given = {"out": str(results.folder), "recipe": recipe, "temp": temp, "rehearsing": options.rehearse}
        given["data"] = str(options.data.resolve()) if options.data else None
        end, failed = began + 60 * options.minutes - ENDING, 0
        for name in [name for name in PHASES if name in phases]:
            later = sum(PHASES[other][0] for other in phases if list(PHASES).index(other) >= list(PHASES).index(name))
            limit = (end - time.time()) * PHASES[name][0] / later
            perform(name, limit, given, environment, results)
            failed += conclude(results, name, options.rehearse)
    return min(failed, 1)


def prepare(wheels: Path | None, temp: Path, results: Results) -> dict[str, str]:
    """The environment of the phases: the wheels, each for itself, then this checkout, before what is installed."""
    site = temp / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    for wheel in sorted(wheels.glob("*.whl")) if wheels else []:
        command = [*install, "--disable-pip-version-check", "--target", str(site), str(wheel)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            results.put(said, "wheels that could not be installed", wheel.name)
            say(results, f"{wheel.name} could not be installed: {said}")
    paths = [str(site), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # decord asks for PATH, and a bare environment has none.
    return {"PATH": os.defpath, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def perform(name: str, limit: float, given: dict[str, Any], environment: dict[str, str], results: Results) -> None:
    """One phase in its own process, which is killed, and all that it started, after `limit` seconds."""
    least = PHASES[name][1]
    if limit < least:
        line = f"{max(limit, 0):.0f} s are left for it, and it takes {least} at least: give more --minutes"
        results.put(line, "phases", name, "failures", name)
        return
    say(results, f"== {name}, {limit:.0f} s at most")
    started = time.time()
    given = {**given, "name": name, "ends": started + limit}
    command = [sys.executable, str(HERE / "on_gpu.py"), "phase", json.dumps(given)]
    with (results.folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=os.setpgrp,
        )  # fmt: skip
        code = 0
        try:
            code = process.wait(limit)
            line = "" if code in (0, 1) else f"it was ended by {code}"
        except subprocess.TimeoutExpired:
            line = f"killed after {limit:.0f} s, its share of the minutes; what it had found is here"
        finally:
            with suppress(ProcessLookupError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = results.read().get("phases", {}).get(name, {})
    if code and not line and "failures" not in found:  # it could not even begin
        line = (results.folder / "log.txt").read_text("utf-8").strip().splitlines()[-1]
    if line:
        results.put(line, "phases", name, "failures", name)
    results.put(round(time.time() - started, 1), "phases", name, "seconds")


def conclude(results: Results, name: str, rehearsing: bool) -> int:
    """Say how a phase ended; 1 where it failed."""
    found = results.read()["phases"][name]
    failed = bool(found.get("failures")) or "results" not in found
    status = "failed" if failed else "rehearsed" if rehearsing else "done"
    results.put(status, "phases", name, "status")
    say(results, f"{name}: {status}, {len(found.get('results', {}))} results in {found.get('seconds', 0)} s")
    for kind in ("failures", "left_out", "reasons"):
        for key, line in found.get(kind, {}).items():
            say(results, f"  {key}: {line}")
    return int(failed)


def say(results: Results, line: str) -> None:
    print(line, flush=True)
    with (results.folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def join(arguments: list[str]) -> int:
    """The checkpoint from its parts; the state beside it, where it was sent."""
    parser = argparse.ArgumentParser(prog="on_gpu.py join", description=join.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint, a .safetensors file")
    parser.add_argument("--evaluate", type=Path, metavar="VIDEOS", help="and run mtanimate eval on these clips")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(HERE.parent))
    from mtanimate.checkpoints.file import verify_checkpoint
    from mtanimate.errors import MTAnimateError
    from mtanimate.files import replacing

    try:
        with replacing(options.out) as partial:
            partial.write_bytes(joined(options.folder, "weights"))
            if wrong := verify_checkpoint(partial):
                raise ValueError(wrong)
        print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB, whole")
        if "state" in Results(options.folder).read()["files"]:
            state = options.out.with_suffix(".pt")
            state.write_bytes(joined(options.folder, "state"))
            print(f"{state}: what mtanimate train --resume takes")
    except (OSError, ValueError, MTAnimateError) as error:
        print(f"on_gpu.py join: {error}", file=sys.stderr)
        return 1
    if options.evaluate is None:
        return 0
    command = [sys.executable, "-m", "mtanimate", "eval", "--checkpoint", str(options.out)]
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command += ["--dataset", str(options.evaluate), "--every", "4"]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
