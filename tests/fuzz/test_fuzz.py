"""A few of the cases of `make fuzz`; and that the campaign sees what it is there to see."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import running

CAMPAIGN = Path(__file__).with_name("campaign.py")


def test_a_few_cases(tmp_path):
    first = 48  # each takes seconds; the 50th runs in both ways
    done = subprocess.run(
        [sys.executable, CAMPAIGN, "--seed", "23", "--cases", f"{first}-50", "--longest", "60", "--keep", tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 51 - first
    assert {line["code"] for line in lines} >= {0, 2}, "the files are all bad, or all good"
    assert not list(tmp_path.glob("case-*"))


HURTS = {
    "ended by signal 11": "import os; os.kill(os.getpid(), 11)",
    "had not ended after": "import time; time.sleep(60)",
    "it took": "import time; a = b'a' * (200 << 20); time.sleep(60)",
    "a process is left": "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)",
    "an error that nobody foresaw": "raise ValueError('a')",
    "exit code 0 with 1 lines": "import sys; print('mtanimate: odd', file=sys.stderr)",
    "exit code 2 with 0 lines": "raise SystemExit(2)",
    "exit code 3": "raise SystemExit(3)",
    "characters that a terminal obeys": "print('\\x1b[31m')",
    "work/there.txt has changed": "open('there.txt', 'a').write('more')",
    "outside/made was made": "open('../outside/made', 'w')",
    "is left, half written": "open('.out-0a1b2c3d.mp4', 'w')",
    "asked for an address": "import os, urllib.request as r; r.urlopen(os.environ['ADDRESS'], timeout=1)",
}


@pytest.mark.skipif(not running.FORKS, reason="processes are watched through /proc")
@pytest.mark.parametrize("fault", HURTS)
def test_what_a_case_does_wrong_is_seen(fault, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "work" / "there.txt").write_text("there")
    monkeypatch.setattr(running, "MOST_MEMORY", 100 << 20)
    monkeypatch.setattr(running, "GRACE", 0.5)
    monkeypatch.setattr(running, "command", lambda arguments: [sys.executable, "-c", *arguments])
    with running.unasked() as (address, asked), running.taking_in_orphans():
        monkeypatch.setenv("ADDRESS", address)
        outcome = running.run([HURTS[fault]], tmp_path, fresh=True, longest=2, asked=asked, may_change=False)
    assert any(fault in each for each in outcome.faults), outcome
