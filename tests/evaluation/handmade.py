"""ResultsFolder made by hand."""

from dataclasses import replace

from mtanimate.evaluation.clip_results import ClipResult
from mtanimate.metrics.gestures import GESTURES
from mtanimate.metrics.measures import METRICS

L1, AKD, MKR, AED, PSNR = (METRICS[name] for name in ("l1", "akd", "mkr", "aed", "psnr"))

MISSING = (None, None)  # correlation and gain of what the driver does and the result does not show


def row(name, *, digest="d1", frames=10, lost=0, **sums):
    """sums: of generated frames; those of repeating are twice as large."""
    twice = {metric: (2 * summed, count) for metric, (summed, count) in sums.items()}
    return ClipResult(
        name=name,
        identity=name.partition("__")[0],
        digest=digest,
        frames=frames,
        series={"generated": sums, "repeating": twice},
        without_subject={"truth": 1, "generated": lost},
        seconds={"generation": 0.5, "metrics": 0.25},
    )


def pair_row(source, driver, **gestures):
    """A pair's: of each gesture its correlation and gain, or MISSING; the driver does none of the others."""
    still = {"driving": 0.001, "counts": False, "correlation": None, "gain": None}
    done = {name: {"driving": 9.0, "counts": True, "correlation": c, "gain": g} for name, (c, g) in gestures.items()}
    found = {name: done.get(name, still) for name in GESTURES}
    return replace(row(f"{source} by {driver}__1", l1=(1.0, 10)), source=source, gestures=found)
