"""Motion between people: one person's first frame driven by another's clip. There is no truth to compare with."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mtanimate.data.clips import Clip
from mtanimate.errors import InputError
from mtanimate.evaluation.bench import Bench, Clock, Sightings, rgb
from mtanimate.evaluation.rows import Row
from mtanimate.files import sha256
from mtanimate.metrics.detector import Frames
from mtanimate.metrics.gestures import POINTS, following
from mtanimate.metrics.landmarks import jitter, movement_distance, pose_distance, similarity
from mtanimate.metrics.measures import Metric, Sum
from mtanimate.metrics.observer import Seen
from mtanimate.video import read_image
from mtanimate.video.crop import square_frames
from mtanimate.video.folder import is_picture

METRICS = [
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
DEFINITION = (
    "motion between people: the first frame of one person's clip (or a picture) is driven by another person's clip; "
    "`source` is the source itself in place of every frame, `driving` the driving clip itself. There is no truth. The "
    "paper asked fifty people which result they prefer (Table 3); this is not that, and does not stand for it"
)


@dataclass(frozen=True)
class Transfer:
    """A source, the first frame of a clip or a picture, driven by a clip of somebody else."""

    name: str
    source: Clip | Path
    driving: Clip

    def digest(self) -> str:
        source = self.source.digest() if isinstance(self.source, Clip) else sha256(self.source)
        return f"{source} {self.driving.digest()}"

    def measure(self, bench: Bench, digest: str) -> Row:
        """Raises InputError for a broken clip or picture."""
        assert bench.observer is not None
        source, reader = self._source(bench), self.driving.open()
        driving = Sightings(bench, self.driving.path.stem, reader, digest.split()[1])
        generated: list[Seen] = []
        clock = Clock()
        with bench.keeping.of(self.name, reader.fps / bench.every) as album:
            for driven in bench.drive(reader, source, clock):
                with clock.on("metrics"):
                    driving.of(driven)
                    seen = bench.look(self.name, driven)
                    assert seen is not None
                    generated.append(seen)
                album.add(rgb(source)[0], rgb(driven.driving), driven.pictures, driven.numbers)
        driving.keep()
        there = bench.observer.look(Frames(rgb(source), self.name, range(1), generated=False))
        found = {"generated": Seen.joined(generated), "driving": Seen.joined(driving.parts)}
        found["source"] = there.repeated(len(found["driving"]))
        series = {name: _figures(found["source"], found["driving"], found[name]) for name in found}
        without = {name: seen.without_subject for name, seen in found.items()}
        frames = len(found["driving"])
        return Row(self.name, self.driving.identity, digest, frames, series, without, clock.seconds)

    def _source(self, bench: Bench) -> Tensor:
        if isinstance(self.source, Clip):
            return bench.first_frame(self.source.open())
        return square_frames(read_image(self.source)[None], bench.resolution)


def _figures(source: Seen, driving: Seen, seen: Seen) -> dict[str, Sum]:
    """Of what is seen in the place of the generated frames."""
    counted = {
        "pose": pose_distance(driving.landmarks, seen.landmarks),
        "movement": movement_distance(driving.landmarks, seen.landmarks),
        "jitter": jitter(seen.landmarks),
    }
    if source.descriptors is not None and seen.descriptors is not None:
        counted["similarity"] = similarity(source.descriptors, seen.descriptors)
    summed = {name: (float(sums.sum()), int(counts.sum())) for name, (sums, counts) in counted.items()}
    if driving.landmarks.shape[1] == POINTS:
        summed |= following(driving.landmarks, seen.landmarks)
    return summed


def transfers(cross: str, clips: dict[str, Clip], seed: int) -> list[Transfer]:
    """cross: so many random pairs of clips of different people, or a CSV file. Raises InputError for neither."""
    if cross.isdecimal():
        return _random_pairs(int(cross), clips, seed)
    file = Path(cross).expanduser()
    if not file.is_file():
        raise InputError(f"--cross {cross}: neither a number of random pairs nor a CSV file")
    return _listed_pairs(file, clips)


def _random_pairs(count: int, clips: dict[str, Clip], seed: int) -> list[Transfer]:
    pairs = [(a, b) for a in clips for b in clips if clips[a].identity != clips[b].identity]
    if not 1 <= count <= len(pairs):
        raise InputError(f"--cross {count}: these clips make {len(pairs)} pairs of different people")
    chosen = np.random.default_rng(seed).choice(len(pairs), count, replace=False)
    return [_between(clips[source], source, clips[driving], driving) for source, driving in (pairs[i] for i in chosen)]


def _listed_pairs(file: Path, clips: dict[str, Clip]) -> list[Transfer]:
    """Columns `source` and `driving`, others are left alone; a source may also be a picture, found beside the CSV."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened))
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


def _between(source: Clip | Path, source_name: str, driving: Clip, driving_name: str) -> Transfer:
    return Transfer(f"{source_name} by {driving_name}".replace("/", "_"), source, driving)
