"""Video reconstruction as the paper measures it: a clip's first frame is the source, all its frames drive."""

from dataclasses import dataclass

from mtanimate.data.clips import Clip
from mtanimate.evaluation.bench import Bench, Clock, Sightings, rgb
from mtanimate.evaluation.rows import Row
from mtanimate.metrics.measures import Sum, added, measure

GENERATED, REPEATING = "generated", "repeating"
DEFINITION = (
    "video reconstruction: the first frame of each clip is the source, every frame drives (the first, too), motion is "
    "absolute; `repeating` is the first frame itself in place of every frame"
)


@dataclass(frozen=True)
class Reconstruction:
    """One clip of the data set. name: its path below it, without extension."""

    name: str
    clip: Clip
    metrics: list[str]

    def digest(self) -> str:
        return self.clip.digest()

    def measure(self, bench: Bench, digest: str) -> Row:
        """Figures of the reconstruction, and of repeating the first frame. Raises InputError for a broken clip."""
        generated: dict[str, Sum] = {}
        repeating: dict[str, Sum] = {}
        reader = self.clip.open()
        source = bench.first_frame(reader)
        truth_seen = Sightings(bench, bench.observer, self.name, reader, digest)
        clock, frames, lost = Clock(), 0, 0
        with bench.keeping.of(self.name, reader.fps / bench.every) as album:
            for driven in bench.drive(reader, source, clock):
                with clock.on("metrics"):
                    device = driven.generated.device
                    truth = driven.driving.to(device).float() / 255
                    first = (source.to(device).float() / 255).expand_as(truth)
                    seen, seen_generated = truth_seen.of(driven), bench.look(self.name, driven)
                    seen_first = truth_seen.parts[0].repeated(len(truth)) if seen else None
                    sums = measure(self.metrics, truth, driven.generated, seen, seen_generated, bench.lpips)
                    generated = added(generated, sums)
                    sums = measure(self.metrics, truth, first, seen, seen_first, bench.lpips)
                    repeating = added(repeating, sums)
                frames += len(truth)
                lost += seen_generated.without_subject if seen_generated else 0
                album.add(rgb(source)[0], rgb(driven.driving), driven.pictures, driven.numbers)
        truth_seen.keep()
        series = {GENERATED: generated, REPEATING: repeating}
        without = {"truth": truth_seen.without_subject, GENERATED: lost} if bench.observer else {}
        return Row(self.name, self.clip.identity, digest, frames, series, without, clock.seconds)
