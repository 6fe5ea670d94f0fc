"""Turn a run's checkpoint into the one that ships: 256 x 256, float16, with its origin in the metadata.

    python benchmarks/ship_checkpoint.py CHECKPOINT --name NAME --samples N --data TEXT

NAME stands in checkpoints.yaml and ships. Writes mtanimate/weights/NAME.safetensors, and its SHA-256 into that file.
"""

import argparse
import hashlib
from pathlib import Path

from mtanimate.checkpoints.file import read_checkpoint, write_checkpoint
from mtanimate.checkpoints.registry import entries
from mtanimate.config import override

TOP = Path(__file__).resolve().parents[1]
# Settings that name places on the machine that trained.
PLACES = ("data.cache", "data.stills", "loss.vgg19_file", "training.backbone_file")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--samples", required=True, help="pairs of frames seen, in all stages")
    parser.add_argument("--data", required=True, help="what it was trained on")
    options = parser.parse_args()
    entry = entries()[options.name]
    if entry.file is None:
        parser.error(f"'{options.name}' is no checkpoint that ships")
    checkpoint = read_checkpoint(options.checkpoint)
    if checkpoint.config.model.resolution != 256:
        parser.error("the checkpoint that ships is 256 x 256: finish its training there")
    about = checkpoint.about | {"samples": options.samples, "data": options.data, "licence": entry.licence}
    entry.file.parent.mkdir(exist_ok=True)
    config = override(checkpoint.config, [(setting, "") for setting in PLACES])
    write_checkpoint(entry.file, checkpoint.animator, config, about, half=True)
    sha256 = hashlib.sha256(entry.file.read_bytes()).hexdigest()
    registry = TOP / "checkpoints.yaml"
    registry.write_text(registry.read_text("utf-8").replace(entry.sha256, sha256), "utf-8")
    print(f"{entry.file}: {entry.file.stat().st_size / 2**20:.1f} MiB, {sha256}")


if __name__ == "__main__":
    main()
