"""The graphs that a network is exported as: what each is called, takes and gives, and in which files it lies."""

from dataclasses import dataclass

from mtanimate.config import ModelConfig

# By backend, the suffixes of a graph's files; the first one is what a runtime is given.
SUFFIXES = {"torch": (".pt2",), "onnx": (".onnx",), "openvino": (".xml", ".bin")}


@dataclass(frozen=True)
class Graph:
    """inputs, outputs: names, in their order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def files(self, backend: str) -> list[str]:
        return [self.name + suffix for suffix in SUFFIXES[backend]]


def graphs_of(config: ModelConfig) -> tuple[Graph, ...]:
    """encode, estimate, drive and, where the network has a background predictor, background."""
    features = feature_names(config)
    picture = ("source",) if config.generator.skips else ()
    motions = ("source_keypoints", "source_affine", "driving_keypoints", "driving_affine")
    background = ("background",) if config.background else ()
    occlusion = ("occlusion",) if config.dense_motion.occlusion else ()
    graphs = (
        Graph("encode", ("source",), ("reduced", *features, "keypoints", "affine")),
        Graph("estimate", ("frames",), ("keypoints", "affine")),
        Graph(
            "drive",
            (*picture, "reduced", *features, *motions, *background),
            ("prediction", "masks", "flow", *occlusion),
        ),
    )
    return (*graphs, Graph("background", ("source", "driving"), background)) if background else graphs


def feature_names(config: ModelConfig) -> tuple[str, ...]:
    """The encoder's maps that driving needs, largest first: without skips the smallest alone."""
    last = config.generator.num_down_blocks
    return tuple(f"features_{level}" for level in range(0 if config.generator.skips else last, last + 1))
