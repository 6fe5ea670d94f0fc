"""Where nobody has a home and the user has no name, as in containers, commands work."""

import json
import os
import subprocess
import sys

import pytest
from commands import tiny_config
from PIL import Image

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.models.animator import Animator

# Several commands in one process, since each start takes seconds.
AS_NOBODY = """
import json, pwd, sys
def missing(user):
    raise KeyError(user)
pwd.getpwuid = pwd.getpwnam = missing
from typer.testing import CliRunner
from mtanimate.cli import app
for command in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, command)
    print(done.exit_code, command[0], (done.output + repr(done.exception)) if done.exit_code else "")
"""


KEPT = ("PATH", "PYTHONPATH", "LANG", "OMP_NUM_THREADS")


@pytest.mark.skipif(os.name != "posix", reason="users as POSIX has them")
def test_commands_work_without_a_home_and_a_name(tmp_path):
    write_checkpoint(tmp_path / "tiny.safetensors", Animator(tiny_config().model), tiny_config(), {})
    for name in ("a.png", "b.png"):
        Image.linear_gradient("L").save(tmp_path / name)
    network = ["--checkpoint", "tiny.safetensors", "--quiet", "--crop", "none", "--driving-crop", "none"]
    pair = ["--source", "a.png", "--driving", "b.png", *network]
    commands = [
        ["checkpoints", "list"],
        ["checkpoints", "verify", "tiny.safetensors"],
        ["animate", *pair, "--out", "out.png"],
        ["attention", *pair, "--out", "attention.png"],
        ["train", "--help"],
    ]
    environment = {name: value for name, value in os.environ.items() if name in KEPT}
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, json.dumps(commands)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    failed = [line for line in done.stdout.splitlines() if not line.startswith("0 ")]
    assert (done.returncode, failed) == (0, []), done.stderr
    assert len(done.stdout.splitlines()) == len(commands)
    assert {"out.png", "attention.png"} <= {file.name for file in tmp_path.iterdir()}
