"""What a figure was measured on."""

import platform
import subprocess
from pathlib import Path

import torch

import mtanimate


def describe() -> str:
    """Processor, threads, versions and commit in one line."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = f"{len(names)} x {names[0]}" if names else cpu
    return (
        f"{cpu}; {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}; mtanimate {mtanimate.__version__} ({commit()})"
    )


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return "no git"
    return run.stdout.strip() or "no commit"
