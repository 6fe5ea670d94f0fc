"""An exported network, with those methods of `Animator` that animating needs."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mtanimate.backends.graphs import feature_names, graphs_of
from mtanimate.backends.runtimes import open_graph
from mtanimate.config import ModelConfig
from mtanimate.errors import InputError
from mtanimate.models.animator import EncodedSource, Rendering
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion


class Exported:
    """The graphs of an exported folder. Pictures are (B, 3, R, R) float RGB in [0, 1], R the configured resolution.

    files: SHA-256 by name, which every file is checked against before a runtime sees it. The backend torch runs what
    stands in them, whatever that is. device: where tensors come from and go to: the CPU.
    Raises InputError where the runtime is not installed or a file is not what `files` says, MTAnimateError where the
    runtime does not take one.
    """

    device = torch.device("cpu")

    def __init__(
        self, folder: Path, backend: str, config: ModelConfig, files: Mapping[str, str], *, bf16: bool = False
    ) -> None:
        """bf16: let OpenVINO compute in bfloat16."""
        self.config = config
        self.folder = folder
        self._graphs = {graph.name: open_graph(backend, folder, graph, files, bf16=bf16) for graph in graphs_of(config)}

    def estimate_motion(self, frames: Tensor) -> Motion:
        """The motion of each picture."""
        return self._motion(self._graphs["estimate"]({"frames": frames}))

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """Everything that the source gives once and for all; `motion` where it is known already."""
        encoded = self._graphs["encode"]({"source": picture})
        features = [encoded[name] for name in feature_names(self.config)]
        return EncodedSource(picture, encoded["reduced"], features, motion or self._motion(encoded))

    def drive(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Tensor:
        """The source (batch 1 or B) moved as `motion` (batch B) says: (B, 3, R, R) in [0, 1]."""
        return self.render(source, motion, background).prediction

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering:
        """As `drive`, with masks, flow and occlusion."""
        if len(source.picture) > 1:  # the graphs drive one source
            each = [slice(index, index + 1) for index in range(len(motion))]
            backgrounds = [None if background is None else background[one] for one in each]
            pairs = zip(each, backgrounds, strict=True)
            return _cat([self.render(_part(source, one), motion[one], behind) for one, behind in pairs])
        driven = self._graphs["drive"](drive_inputs(self.config, source, motion, background))
        exact = self.config.dense_motion.exact_sampling
        dense = DenseMotion(driven["masks"], driven["flow"], driven.get("occlusion"), exact)
        side = self.config.resolution
        return Rendering(self._of_shape(driven["prediction"], 3, side, side), dense)

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """(B, 3, 3) where the network has a background predictor, else None. source: batch 1 or B."""
        if "background" not in self._graphs:
            return None
        predict = self._graphs["background"]
        if len(source) == 1:
            return self._of_shape(predict({"source": source, "driving": driving})["background"], 3, 3)
        pairs = zip(source.split(1), driving.split(1), strict=True)
        found = torch.cat([predict({"source": one, "driving": other})["background"] for one, other in pairs])
        return self._of_shape(found, 3, 3)

    def _motion(self, given: dict[str, Tensor]) -> Motion:
        parts = self.config.num_keypoints
        keypoints = self._of_shape(given["keypoints"], parts, 2)
        return Motion(keypoints, self._of_shape(given["affine"], parts, 2, 2), self.config.estimator.motion_kind)

    def _of_shape(self, result: Tensor, *shape: int) -> Tensor:
        """What a graph gave, (B, *shape). Raises InputError where it gave something else: it is another network's."""
        if result.shape[1:] != shape:
            raise InputError(
                f"{self.folder} gives {tuple(result.shape)} where its manifest says {('B', *shape)}: export it again"
            )
        return result


def drive_inputs(
    config: ModelConfig, source: EncodedSource, motion: Motion, background: Tensor | None = None
) -> dict[str, Tensor]:
    """What the graph `drive` takes, and the picture and the background where it takes none. source: batch 1."""
    names = feature_names(config)
    if background is None:  # it stands still
        background = torch.eye(3).repeat(len(motion), 1, 1)
    given = {"source": source.picture, "reduced": source.reduced, "background": background}
    given |= dict(zip(names, source.features[-len(names) :], strict=True))
    given |= {"source_keypoints": source.motion.keypoints, "source_affine": source.motion.affine}
    return given | {"driving_keypoints": motion.keypoints, "driving_affine": motion.affine}


def _part(source: EncodedSource, part: slice) -> EncodedSource:
    features = [feature[part] for feature in source.features]
    return EncodedSource(source.picture[part], source.reduced[part], features, source.motion[part])


def _cat(renderings: list[Rendering]) -> Rendering:
    motions = [rendering.motion for rendering in renderings]
    occlusions = [motion.occlusion for motion in motions if motion.occlusion is not None]
    masks, flow = torch.cat([motion.masks for motion in motions]), torch.cat([motion.flow for motion in motions])
    dense = DenseMotion(masks, flow, torch.cat(occlusions) if occlusions else None, motions[0].exact)
    return Rendering(torch.cat([rendering.prediction for rendering in renderings]), dense)
