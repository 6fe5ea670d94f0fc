"""Many cases: `make fuzz`, and a few of them as a test.

    python tests/fuzz/campaign.py --seed 1 --cases 2000    # numbers 0 to 1999; or 500-999
    python tests/fuzz/campaign.py --seed 1 --case 17       # one again, and all that it said

Folders of cases with a fault are kept below --keep, with the command in `command`. Exit code 1 where there was one.
"""

import argparse
import json
import os
import shlex
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

# Before NumPy and PyTorch are imported: threads do not outlive a fork.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import running
from cases import make_case
from running import Outcome

FRESH_EVERY = 50


class Campaign:
    """Cases of one seed, and what became of them."""

    def __init__(self, seed: int, keep: Path, longest: float, address: str, asked: Callable[[], bool]) -> None:
        self.seed, self.keep, self.longest, self.address, self.asked = seed, keep, longest, address, asked
        self.good = keep / "good"
        self.outcomes: dict[int, tuple[str, Outcome]] = {}

    def case(self, number: int) -> Outcome:
        """Make it, run it, judge it; its folder stays where it has a fault."""
        kind, arguments = self._made(self.keep / f"case-{number}", number)
        outcome = self._run(number, kind, arguments, fresh=False)
        if number % FRESH_EVERY == 0 and running.FORKS and not outcome.faults:
            shutil.rmtree(self.keep / f"case-{number}")
            self._made(self.keep / f"case-{number}", number)
            fresh = self._run(number, kind, arguments, fresh=True)
            outcome.faults += [f"in a fresh process: {fault}" for fault in fresh.faults]
            if (fresh.code, fresh.stderr) != (outcome.code, outcome.stderr):
                outcome.faults.append(f"a fresh process says otherwise: {fresh.code}, {fresh.stderr}")
        self.outcomes[number] = kind, outcome
        self._note(number, kind, arguments, outcome)
        if not outcome.faults:
            shutil.rmtree(self.keep / f"case-{number}")
        return outcome

    def _note(self, number: int, kind: str, arguments: list[str], outcome: Outcome) -> None:
        """A line in `cases.jsonl`: what came of each, also of the good ones, whose folders go."""
        line = {"case": number, "kind": kind, "code": outcome.code, "seconds": round(outcome.seconds, 2)}
        line |= {"mib": outcome.memory >> 20, "stderr": outcome.stderr[:500], "faults": outcome.faults}
        with (self.keep / "cases.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"command": shlex.join(arguments)[:500]}) + "\n")

    def _run(self, number: int, kind: str, arguments: list[str], fresh: bool) -> Outcome:
        folder, may_change = self.keep / f"case-{number}", kind == "left_behind"
        return running.run(
            arguments, folder, fresh=fresh, longest=self.longest, asked=self.asked, may_change=may_change
        )

    def _made(self, folder: Path, number: int) -> tuple[str, list[str]]:
        """In a process of its own where there is fork: PyTorch must not have run in the one that forks."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

        def make() -> int:
            kind, arguments = make_case(self.seed, number, folder, self.good, self.address)
            (folder / "command").write_text("\0".join([kind, *arguments]), "utf-8", "surrogateescape")
            return 0

        if running.FORKS:
            self.good.mkdir(exist_ok=True)
            _, status = os.waitpid(running.forked(make, self.good, {}), 0)
            if status:
                raise SystemExit(f"case {number} could not be made: {(self.keep / 'stderr').read_text()}")
        else:
            make()
        kind, *arguments = (folder / "command").read_text("utf-8", "surrogateescape").split("\0")
        return kind, arguments

    def report(self) -> str:
        """By kind: cases, exit codes, the slowest, the largest; then every fault, and how to repeat it."""
        by_kind = defaultdict(list)
        for number, (kind, outcome) in self.outcomes.items():
            by_kind[kind].append((number, outcome))
        lines = []
        for kind, cases in sorted(by_kind.items()):
            codes = Counter(str(outcome.code) for _, outcome in cases)
            slowest = max(cases, key=lambda case: case[1].seconds)
            largest = max(cases, key=lambda case: case[1].memory)
            lines.append(
                f"{kind:14}{len(cases):5}  exit "
                + ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
                + f"; {slowest[1].seconds:.1f} s (case {slowest[0]}), {largest[1].memory >> 20} MiB (case {largest[0]})"
            )
        for number, (kind, outcome) in self.outcomes.items():
            lines += [f"case {number} ({kind}): {fault}" for fault in outcome.faults]
        faulty = [number for number, (_, outcome) in self.outcomes.items() if outcome.faults]
        again = f"; again: make fuzz SEED={self.seed} CASE=N; their folders: {self.keep}/case-N" if faulty else ""
        return "\n".join([*lines, f"{len(self.outcomes)} cases, {len(faulty)} with a fault{again}"])


def _numbers(text: str) -> range:
    first, _, last = text.rpartition("-")
    return range(int(first), int(last) + 1) if first else range(int(last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=_numbers, default=range(2000))
    parser.add_argument("--case", type=int)
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"))
    parser.add_argument("--longest", type=float, default=30, help="seconds of a case; more on a busy machine")
    options = parser.parse_args()
    running.prepare()
    with running.unasked() as (address, asked), running.taking_in_orphans():
        campaign = Campaign(options.seed, options.keep.resolve(), options.longest, address, asked)
        for number in options.cases if options.case is None else [options.case]:
            outcome = campaign.case(number)
            if outcome.faults or options.case is not None:
                print(f"case {number}: exit {outcome.code}, {outcome.seconds:.1f} s; {'; '.join(outcome.faults)}")
                print(outcome.stderr[-3000:], flush=True)
    print(campaign.report())
    if any(outcome.faults for _, outcome in campaign.outcomes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
