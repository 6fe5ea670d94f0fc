"""Numbers with limits, as types: a value outside is refused by name when a configuration is read."""

from dataclasses import dataclass
from typing import Annotated

INFINITE = float("inf")


@dataclass(frozen=True)
class Within:
    """Limits of a number, both included, but for those that `open` names: "low", "high"."""

    low: float
    high: float = INFINITE
    open: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        above = value > self.low if "low" in self.open else value >= self.low
        return above and (value < self.high if "high" in self.open else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if 'low' in self.open else 'at least'} {self.low:g}"
        if self.high == INFINITE:
            return low
        return f"{low} and {'below' if 'high' in self.open else 'at most'} {self.high:g}"


_MOST = 10**18  # for whole numbers without another limit: 64 bits hold it
Count = Annotated[int, Within(1, _MOST)]
# Of a network: far above any that is of use, and low enough that what a file asks for can be built and looked at.
Layers = Annotated[int, Within(1, 256)]
Blocks = Annotated[int, Within(1, 12)]  # each halves the picture
Halvings = Annotated[int, Within(0, 12)]
Width = Annotated[int, Within(1, 16_384)]
OptionalWidth = Annotated[int, Within(0, 16_384)]
Side = Annotated[int, Within(1, 16_384)]
Parts = Annotated[int, Within(1, 1_000)]
Reduction = Annotated[float, Within(1 / 64, 1)]
Natural = Annotated[int, Within(0, _MOST)]
Weight = Annotated[float, Within(0, INFINITE, ("high",))]
Positive = Annotated[float, Within(0, INFINITE, ("low", "high"))]
Portion = Annotated[float, Within(0, 1, ("low",))]
Share = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, ("high",))]  # of a running mean or a moment: 1 would never forget
Degrees = Annotated[float, Within(0, 180)]
