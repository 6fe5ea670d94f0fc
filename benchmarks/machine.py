"""What a figure was measured on."""

import os
import platform
import subprocess
from pathlib import Path

import torch

import mtanimate
from mtanimate.devices import processor


def describe() -> str:
    """Processor, threads, versions and commit in one line."""
    return (
        f"{os.cpu_count()} x {processor()}; {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}; mtanimate {mtanimate.__version__} ({commit()})"
    )


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return "no git"
    return run.stdout.strip() or "no commit"
