"""The graphs that a network is exported as: what each is called, takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass

from mtanimate.config import ModelConfig

Shape = tuple[int | str, ...]
ONE, ANY = 1, "batch"  # a dimension that is always 1; one that is as large as the caller likes


@dataclass(frozen=True)
class Graph:
    """name: of its file. inputs, outputs: in their order; shapes with `ANY` where the batch stands."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def graphs_of(config: ModelConfig) -> tuple[Graph, ...]:
    """encode, estimate, drive and, where the network has a background predictor, background."""
    features = feature_names(config)
    encode = Graph("encode", ("source",), ("reduced", *features, "keypoints", "affine"))
    estimate = Graph("estimate", ("frames",), ("keypoints", "affine"))
    picture = ("source",) if config.generator.skips else ()
    motions = ("source_keypoints", "source_affine", "driving_keypoints", "driving_affine")
    background = ("background",) if config.background else ()
    occlusion = ("occlusion",) if config.dense_motion.occlusion else ()
    drive = Graph(
        "drive", (*picture, "reduced", *features, *motions, *background), ("prediction", "masks", "flow", *occlusion)
    )
    if config.background is None:
        return encode, estimate, drive
    return encode, estimate, drive, Graph("background", ("source", "driving"), ("background",))


def feature_names(config: ModelConfig) -> Sequence[str]:
    """The encoder's maps that driving needs, largest first: without skips the smallest alone."""
    last = config.generator.num_down_blocks
    return [f"features_{level}" for level in range(0 if config.generator.skips else last, last + 1)]
