"""Rows made by hand."""

from mtanimate.evaluation.rows import Row
from mtanimate.metrics.measures import METRICS

L1, AKD, MKR, AED, PSNR = (METRICS[name] for name in ("l1", "akd", "mkr", "aed", "psnr"))


def row(name, *, digest="d1", frames=10, lost=0, **sums):
    """sums: of generated frames; those of repeating are twice as large."""
    twice = {metric: (2 * summed, count) for metric, (summed, count) in sums.items()}
    return Row(
        name=name,
        identity=name.partition("__")[0],
        digest=digest,
        frames=frames,
        series={"generated": sums, "repeating": twice},
        without_subject={"truth": 1, "generated": lost},
        seconds={"generation": 0.5, "metrics": 0.25},
    )
