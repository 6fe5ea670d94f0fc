"""What `--cluster` costs and how it scales: `mtanimate/cluster` on several nodes of Ray's on this machine.

    python benchmarks/cluster.py scaling [--seconds 1] [--rows 20]    # a stand-in network that sleeps; 1 to 16 workers
    python benchmarks/cluster.py overhead [--rows 24] [--rounds 3]    # --cluster local against --jobs with threads
    python benchmarks/cluster.py million [--rows 1000000]             # rows that are all done already

`scaling` also prints the driver's CPU time for a row, which bounds how many workers one driver can serve.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from machine import describe

WORKERS = (1, 2, 4, 8, 16)
TOOL = [sys.executable, "-m", "mtanimate"]


class Sleeps:
    """A stand-in for a network: a row takes `seconds`, and no processor."""

    def __init__(self, seconds: float, agreed: Any) -> None:
        self._seconds = seconds

    def identity(self) -> dict[str, str]:
        return {}

    def perform(self, item: Any, before: Any) -> Iterator[Any]:
        yield {"status": "begun", "new": True}
        time.sleep(self._seconds)
        yield {"status": "done", "frames": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["scaling", "overhead", "million"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(describe())
    if options.what == "scaling":
        scaling(options.rows or 20, options.seconds)
    elif options.what == "overhead":
        overhead(options.rows or 24, options.rounds)
    else:
        million(options.rows or 1_000_000)


def scaling(rows: int, seconds: float) -> None:
    from ray.cluster_utils import Cluster

    from mtanimate.cluster.connection import ClusterOptions, connect
    from mtanimate.cluster.workers import Workers

    several = Cluster(initialize_head=True, head_node_args={"num_cpus": 6})
    for _ in range(2):
        several.add_node(num_cpus=5)
    print(f"\n{rows} rows a worker, each {seconds:g} s of sleep; three nodes\n")
    print("| workers | rows a second | of linear | the driver's CPU time for a row, ms |\n| --- | --- | --- | --- |")
    for count in WORKERS:
        with connect(ClusterOptions(several.address, 1), "cpu", count) as nodes:
            said = Workers(nodes, print).spread(partial(Sleeps, seconds), lambda item: None, range((rows + 1) * count))
            # The first round is left out, in which workers start.
            ends, used = [], 0.0
            for _, value in said:
                if value["status"] == "done":
                    ends.append(time.monotonic())
                    if len(ends) == count:
                        used = time.process_time()
            used = (time.process_time() - used) / (rows * count)
        rate = rows * count / (ends[-1] - ends[count - 1])
        print(f"| {count} | {rate:.2f} | {rate * seconds / count:.3f} | {1000 * used:.1f} |", flush=True)
    several.shutdown()


def overhead(rows: int, rounds: int) -> None:
    """Pairs of runs in turn, with the shipped checkpoint: two threads, and two workers of a core each."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo = Path(__file__).parents[1] / "docs" / "demo.py"
        subprocess.run([sys.executable, str(demo), str(folder)], check=True)
        ways = {"--jobs": [], "--cluster local": ["--cluster", "local"]}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        print(f"\n{rows} rows of 1 s; rows a second once it runs, and with its start\n")
        for number in range(rounds):
            for name, given in ways.items():
                steady, whole = run(folder, f"{number}{len(given)}", rows, given)
                rates[name].append(steady)
                print(f"{name}: {steady:.3f} rows/s; {whole:.3f} with the start", flush=True)
        threads, workers = (statistics.median(rates[name]) for name in ways)
        print(f"medians: {threads:.3f} and {workers:.3f} rows/s: {workers / threads:.2f} times")


def run(folder: Path, name: str, rows: int, given: list[str]) -> tuple[float, float]:
    jobs = folder / f"jobs-{name}.csv"
    lines = [f"face.png,talk.mp4,{name}-{number}.mp4,1" for number in range(rows)]
    jobs.write_text("\n".join(["source,driving,out,end", *lines]) + "\n", "utf-8")
    report = folder / f"{jobs.name}.report.jsonl"
    began = time.monotonic()
    process = subprocess.Popen([*TOOL, "animate", "--jobs", str(jobs), "--workers", "2", "--quiet", *given])
    ends: list[float] = []
    while process.poll() is None:
        done = report.read_text("utf-8").count('"status": "done"') if report.exists() else 0
        ends += [time.monotonic()] * (done - len(ends))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    # Two rows end together at the start: what is between the second end and the last is the steady pace.
    return (len(ends) - 2) / (ends[-1] - ends[1]), len(ends) / (ends[-1] - began)


def million(rows: int) -> None:
    from mtanimate.animation.job_rows import JobsFile
    from mtanimate.animation.jobs import run_jobs
    from mtanimate.animation.settings import Settings
    from mtanimate.files import to_json

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("face.png", "talk.mp4"):
            (folder / name).touch()
        (folder / "out").mkdir()
        jobs = folder / "jobs.csv"
        with jobs.open("w") as file:
            file.write("source,driving,out\n")
            file.writelines(f"face.png,talk.mp4,out/{number:07}.mp4\n" for number in range(rows))
        with (folder / "jobs.csv.report.jsonl").open("w") as file:
            for row in JobsFile(jobs, Settings()):
                os.close(os.open(row.out, os.O_CREAT))
                begun = {"line": row.line, "key": row.key, "source": "face.png", "out": str(row.out)}
                file.write(to_json(begun | {"status": "begun", "new": True}) + "\n")
                file.write(to_json(begun | {"status": "done", "frames": 30, "fps": 25.0, "warnings": []}) + "\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, used = time.monotonic(), time.process_time()
        summary = run_jobs(jobs)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(summary.as_dict()))
        print(
            f"{rows} finished rows: {time.monotonic() - began:.1f} s, {time.process_time() - used:.1f} s of CPU time; "
            f"memory {before >> 10} MiB before, at most {memory >> 10} MiB"
        )


if __name__ == "__main__":
    main()
