"""What is measured of one clip, or of one pair: its reconstruction, or how a source follows another person's clip."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mtanimate.data.clips import Clip
from mtanimate.errors import InputError
from mtanimate.evaluation.clip_results import ENLARGED, FIRST_FRAME, GENERATED, ClipResult
from mtanimate.evaluation.evaluator import Clock, DrivenFrames, DrivenSource, Evaluator, TrueDetections, rgb
from mtanimate.files import sha256
from mtanimate.metrics.detector_pool import DetectorPool
from mtanimate.metrics.detectors import Detections, Frames
from mtanimate.metrics.gestures import POINTS, Following, following, landmark_following
from mtanimate.metrics.measures import (
    Metric,
    Sum,
    added,
    jitter,
    measure,
    movement_distance,
    pose_distance,
    similarity,
)
from mtanimate.reading import read_table
from mtanimate.video import read_image
from mtanimate.video.footage import Footage, is_picture

RECONSTRUCTION = (
    "video reconstruction: the first frame of each clip is the source, every frame drives (the first, too), motion is "
    "absolute; `repeating` is the first frame itself in place of every frame"
)
AT_OWN_SIZE = "`enlarged` is the network's own picture, enlarged bicubically"


@dataclass(frozen=True)
class Reconstruction:
    """A clip, reconstructed from its first frame.

    Attributes:
        name: The clip's path below the data set, without extension.
        clip: The clip.
        metrics: Names of the metrics that are measured.
    """

    name: str
    clip: Clip
    metrics: list[str]

    @property
    def files(self) -> list[Path]:
        return [self.clip.path]

    def digest(self) -> str:
        return self.clip.digest()

    def measure(self, evaluator: Evaluator, digest: str) -> ClipResult:
        """Metrics of the reconstruction and of the first-frame baseline. Raises InputError for a broken clip."""
        series: dict[str, dict[str, Sum]] = {}
        lost: dict[str, int] = {}
        reader = self.clip.open()
        source = evaluator.first_frame(reader)
        detections = TrueDetections(evaluator, evaluator.pool, self.name, reader, digest, source.side)
        clock, frames = Clock(), 0
        with evaluator.samples.of_clip(self.name, reader.fps / evaluator.every) as samples:
            for driven in evaluator.drive(reader, source, clock):
                with clock.on("metrics"):
                    found = detections.detect(driven)
                    for name, made in driven.series.items():
                        seen = evaluator.detect(self.name, driven, name)
                        sums = self._sums(evaluator, driven.driving, made.frames, found, seen)
                        series[name] = added(series.get(name, {}), sums)
                        lost[name] = lost.get(name, 0) + (seen.without_subject if seen else 0)
                    first = source.shown.expand_as(driven.driving)
                    seen = detections.batches[0].repeated(len(first)) if found else None
                    sums = self._sums(evaluator, driven.driving, first, found, seen)
                    series[FIRST_FRAME] = added(series.get(FIRST_FRAME, {}), sums)
                frames += len(first)
                samples.add(rgb(source.shown)[0], rgb(driven.driving), driven.pictures, driven.numbers)
        detections.save()
        return ClipResult(
            name=self.name,
            identity=self.clip.identity,
            digest=digest,
            frames=frames,
            series=series,
            without_subject={"truth": detections.without_subject, **lost} if evaluator.pool else {},
            seconds=clock.seconds,
            side=None if evaluator.largest is None else source.side,
        )

    def _sums(
        self,
        evaluator: Evaluator,
        truth: Tensor,
        frames: Tensor,
        in_truth: Detections | None,
        in_frames: Detections | None,
    ) -> dict[str, Sum]:
        """Metrics of a batch of frames (B, 3, S, S), uint8 or in [0, 1]. truth: uint8, the same shape."""
        device = evaluator.predictor.network.device
        sums: dict[str, Sum] = {}
        for part in evaluator.parts(truth):
            pictures = [each[part].to(device) for each in (truth, frames)]
            true, shown = (each if each.is_floating_point() else each.float() / 255 for each in pictures)
            found, seen = (each and each[part] for each in (in_truth, in_frames))
            sums = added(sums, measure(self.metrics, true, shown, found, seen, evaluator.lpips))
        return sums


REENACTMENT_METRICS = [
    Metric(
        "similarity",
        "identity similarity",
        "descriptors",
        "higher",
        "cosine of the identity descriptors of the generated frame and the source; over frames where both are found. "
        "Descriptors need not be centred: read it beside the driving clip's, which is somebody else",
    ),
    Metric(
        "pose",
        "pose distance",
        "landmarks",
        "lower",
        "mean Euclidean distance of the generated and the driving frame's landmarks, each frame's centred on their "
        "mean and in units of their root mean square distance from it; the shape of the face counts too; over frames",
    ),
    Metric(
        "movement",
        "movement distance",
        "landmarks",
        "lower",
        "as the pose distance, of what has changed in each since the clip's first frame, so that the shape of the face "
        "does not count",
    ),
    Metric(
        "jitter",
        "jitter (pixels)",
        "landmarks",
        "lower",
        "mean length of the landmarks' second difference in time; it holds the detector's own noise, so it is to be "
        "read beside the driving clip's",
    ),
    *(
        Metric(
            name,
            f"{title} follows",
            "landmarks",
            "higher",
            f"Pearson's correlation, over a clip's frames, of {what} in the generated and the driving face; of faces "
            "with 68 landmarks; a clip whose own face hardly does it does not count",
        )
        for name, title, what in (
            ("yaw", "turn of the head", "the nose's place between the eyes"),
            ("pitch", "nod of the head", "the nose's height below the eyes"),
            ("mouth", "mouth", "the opening of the lips"),
        )
    ),
]
REENACTMENT = (
    "motion between people: the first frame of one person's clip (or a picture) is driven by another person's clip; "
    "`source` is the source itself in place of every frame, `driving` the driving clip itself. There is no truth. The "
    "paper asked fifty people which result they prefer (Table 3); this is not that, and does not stand for it"
)


@dataclass(frozen=True)
class Reenactment:
    """A source, the first frame of a clip or a picture, driven by the clip of another person."""

    name: str
    source: Clip | Path
    driving: Clip

    @property
    def source_identity(self) -> str:
        """Whose face the source shows. Every picture counts as a person of its own."""
        return self.source.identity if isinstance(self.source, Clip) else self.source.name

    @property
    def files(self) -> list[Path]:
        return [self.source.path if isinstance(self.source, Clip) else self.source, self.driving.path]

    def digest(self) -> str:
        source = self.source.digest() if isinstance(self.source, Clip) else sha256(self.source)
        return f"{source} {self.driving.digest()}"

    def measure(self, evaluator: Evaluator, digest: str) -> ClipResult:
        """Metrics of the generated frames, of the driving clip and of the unmoved source, and the gestures of faces.

        Raises InputError for a broken clip or picture.
        """
        assert evaluator.pool is not None
        source, reader = self._source(evaluator), self.driving.open()
        generated = [GENERATED] if evaluator.largest is None else [GENERATED, ENLARGED]
        looks = [_PairDetections(evaluator, evaluator.pool, self, reader, digest, source.side, generated)]
        if evaluator.mesh:
            looks += [_PairDetections(evaluator, evaluator.mesh, self, reader, digest, source.side, [GENERATED])]
        clock = Clock()
        with evaluator.samples.of_clip(self.name, reader.fps / evaluator.every) as samples:
            for driven in evaluator.drive(reader, source, clock):
                with clock.on("metrics"):
                    for each in looks:
                        each.detect(driven)
                samples.add(rgb(source.shown)[0], rgb(driven.driving), driven.pictures, driven.numbers)
        driving, made = looks[0].joined()
        in_source = evaluator.pool.detect(Frames(rgb(source.shown), self.name, range(1), generated=False))
        found = {**made, "driving": driving, "source": in_source.repeated(len(driving))}
        series = {name: _sums(found["source"], driving, found[name]) for name in found}
        gestures: dict[str, Following] = {}
        if evaluator.mesh:
            found["driving_mesh"], meshes = looks[1].joined()
            found["generated_mesh"] = meshes[GENERATED]
            gestures = following(found["driving_mesh"].landmarks, found["generated_mesh"].landmarks)
        return ClipResult(
            name=self.name,
            identity=self.driving.identity,
            source=self.source_identity,
            digest=digest,
            frames=len(driving),
            series=series,
            gestures=gestures,
            without_subject={name: each.without_subject for name, each in found.items()},
            seconds=clock.seconds,
            side=None if evaluator.largest is None else source.side,
        )

    def _source(self, evaluator: Evaluator) -> DrivenSource:
        if isinstance(self.source, Clip):
            return evaluator.first_frame(self.source.open())
        return evaluator.source(read_image(self.source))


def reenactments(cross: str, clips: dict[str, Clip], seed: int, photographs: Path | None = None) -> list[Reenactment]:
    """The pairs of a source and a driving clip that `--cross` asks for.

    Args:
        cross: How many random pairs of different people, or the name of a CSV file of pairs.
        clips: The data set's clips by their names.
        seed: Draws the random pairs.
        photographs: A folder of pictures, which are the sources of the random pairs in place of clips.

    Raises:
        InputError: `cross` is neither, or there are no such pairs.
    """
    if cross.isdecimal():
        sources = dict(clips) if photographs is None else _pictures(photographs)
        return _random_pairs(int(cross), sources, clips, seed)
    if photographs is not None:
        raise InputError(f"--sources goes with --cross N, so many random pairs; {cross} names its sources itself")
    file = Path(cross).expanduser()
    if not file.is_file():
        raise InputError(f"--cross {cross}: neither a number of random pairs nor a CSV file")
    return _listed_pairs(file, clips)


class _PairDetections:
    """What one detector finds in a driving clip and in series of frames generated from it.

    side: Of the frames, in pixels.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        pool: DetectorPool,
        reenactment: Reenactment,
        reader: Footage,
        digest: str,
        side: int,
        series: list[str],
    ) -> None:
        self._pool, self._name = pool, reenactment.name
        clip = reenactment.driving
        self._driving = TrueDetections(evaluator, pool, clip.path.stem, reader, digest.split()[1], side)
        self._generated: dict[str, list[Detections]] = {name: [] for name in series}

    def detect(self, driven: DrivenFrames) -> None:
        self._driving.detect(driven)
        for name, found in self._generated.items():
            frames = Frames(driven.series[name].pictures, self._name, driven.numbers, generated=True)
            found.append(self._pool.detect(frames))

    def joined(self) -> tuple[Detections, dict[str, Detections]]:
        """The detections in all driving frames, which are saved for the next evaluation, and in each series."""
        self._driving.save()
        generated = {name: Detections.joined(found) for name, found in self._generated.items()}
        return Detections.joined(self._driving.batches), generated


def _sums(source: Detections, driving: Detections, found: Detections) -> dict[str, Sum]:
    """Each metric's sum over a series of frames, in which `found` was detected."""
    counted = {
        "pose": pose_distance(driving.landmarks, found.landmarks),
        "movement": movement_distance(driving.landmarks, found.landmarks),
        "jitter": jitter(found.landmarks),
    }
    if source.descriptors is not None and found.descriptors is not None:
        counted["similarity"] = similarity(source.descriptors, found.descriptors)
    summed = {name: (float(sums.sum()), int(counts.sum())) for name, (sums, counts) in counted.items()}
    if driving.landmarks.shape[1] == POINTS:
        summed |= landmark_following(driving.landmarks, found.landmarks)
    return summed


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures in a folder by their names without extension."""
    if not folder.is_dir():
        raise InputError(f"--sources {folder}: no such folder")
    found: dict[str, Path] = {}
    for file in sorted(filter(is_picture, folder.iterdir())):
        if file.stem in found:
            raise InputError(f"--sources: {file} and {found[file.stem]} have the same name: rename one")
        found[file.stem] = file
    if not found:
        raise InputError(f"--sources {folder}: no pictures in it")
    return found


def _random_pairs(
    count: int, sources: Mapping[str, Clip | Path], clips: dict[str, Clip], seed: int
) -> list[Reenactment]:
    pairs = [_between(sources[a], a, clips[b], b) for a in sources for b in clips]
    pairs = [pair for pair in pairs if pair.source_identity != pair.driving.identity]
    if not 1 <= count <= len(pairs):
        raise InputError(f"--cross {count}: there are {len(pairs)} pairs of different people")
    return [pairs[i] for i in np.random.default_rng(seed).choice(len(pairs), count, replace=False)]


def _listed_pairs(file: Path, clips: dict[str, Clip]) -> list[Reenactment]:
    """The pairs in the columns `source` and `driving`. A source may also be a picture beside the CSV file."""
    try:
        with read_table(file) as table:
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--cross {file} is not a CSV file ({error})") from error
    if not rows or not {"source", "driving"} <= rows[0].keys():
        raise InputError(f"--cross {file}: expected a first line with the columns source and driving, then the pairs")
    found = []
    for line, row in enumerate(rows, 2):
        source, driving = (_known(row[column] or "", clips) for column in ("source", "driving"))
        picture = file.parent / (row["source"] or "")
        where = f"--cross {file}, line {line}"
        if driving is None:
            raise InputError(f"{where}: no clip '{row['driving']}' in the data set")
        if source is not None:
            found.append(_between(clips[source], source, clips[driving], driving))
        elif is_picture(picture) and picture.is_file():
            found.append(_between(picture, picture.stem, clips[driving], driving))
        else:
            raise InputError(f"{where}: '{row['source']}' is no clip of the data set and no picture beside the CSV")
    return found


def _known(name: str, clips: dict[str, Clip]) -> str | None:
    """The clip of this name, with or without its extension."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in clips), None)


def _between(source: Clip | Path, source_name: str, driving: Clip, driving_name: str) -> Reenactment:
    return Reenactment(f"{source_name} by {driving_name}".replace("/", "_"), source, driving)
