"""An exported network, with those methods of `Animator` that animating needs."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mtanimate.backends.graphs import feature_names, graphs_of
from mtanimate.backends.runtimes import Run, open_graph
from mtanimate.config import ModelConfig
from mtanimate.devices import out_of_memory
from mtanimate.errors import MTAnimateError
from mtanimate.models.animator import EncodedSource, Rendering
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion


class Exported:
    """The graphs of an exported folder. Pictures are (B, 3, R, R) float RGB in [0, 1], R the configured resolution.

    files: SHA-256 by name, which every file is checked against before a runtime sees it. The backend torch runs what
    stands in them, whatever that is. device: where tensors come from and go to: the CPU.
    Raises InputError where the runtime is not installed or a file is not what `files` says, MTAnimateError where the
    runtime does not take one; so does every method where a graph fails, or gives nothing that is finite.
    """

    device = torch.device("cpu")

    def __init__(
        self, folder: Path, backend: str, config: ModelConfig, files: Mapping[str, str], *, bf16: bool = False
    ) -> None:
        """bf16: let OpenVINO compute in bfloat16."""
        self.config = config
        self._graphs: dict[str, Run] = {}
        for graph in graphs_of(config):
            run = open_graph(backend, folder, graph, files, bf16=bf16)
            self._graphs[graph.name] = _watched(run, folder / graph.files(backend)[0], _shapes(config))

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
        return Rendering(driven["prediction"], dense)

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """(B, 3, 3) where the network has a background predictor, else None. source: batch 1 or B."""
        if "background" not in self._graphs:
            return None
        predict = self._graphs["background"]
        if len(source) == 1:
            return predict({"source": source, "driving": driving})["background"]
        pairs = zip(source.split(1), driving.split(1), strict=True)
        return torch.cat([predict({"source": one, "driving": other})["background"] for one, other in pairs])

    def _motion(self, given: dict[str, Tensor]) -> Motion:
        return Motion(given["keypoints"], given["affine"], self.config.estimator.motion_kind)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of what the graphs give, for each frame."""
    parts, side = config.num_keypoints, config.resolution
    return {"keypoints": (parts, 2), "affine": (parts, 2, 2), "prediction": (3, side, side), "background": (3, 3)}


def _watched(run: Run, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Run:
    """The same. Raises MTAnimateError, naming the graph's file, where it fails, gives other shapes, or has never given
    anything finite yet: single frames that are not finite are held by whoever asked for them."""
    good = False

    def watched(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        nonlocal good
        try:
            found = run(given)
        except (MTAnimateError, MemoryError):
            raise
        except Exception as error:  # runtimes raise whatever their own errors are
            if isinstance(error, RuntimeError) and out_of_memory(error):  # fewer frames at once may fit
                raise
            raise MTAnimateError(f"{file} cannot be run ({' '.join(str(error).split())[:200]})") from error
        frames = max(map(len, given.values()))
        for name, each in found.items():
            if each.ndim < 2 or (name in shapes and each.shape != (frames, *shapes[name])):
                raise MTAnimateError(f"{file} gives {name} of the shape {tuple(each.shape)}: export it again")
        good = good or all(bool(each.isfinite().flatten(1).all(dim=1).any()) for each in found.values())
        if not good:
            names = [name for name, each in found.items() if not each.isfinite().all()]
            raise MTAnimateError(
                f"{file} gives {' and '.join(names)} that are not finite: export it again, or in another precision"
            )
        return found

    return watched


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
