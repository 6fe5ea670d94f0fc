"""The figure of one scene: its pictures, and what their colours mean."""

from mtanimate.drawing.colours import token_colours
from mtanimate.drawing.flow import FAR, colour_wheel
from mtanimate.drawing.sheets import Label, Sheet

_ACROSS = 4  # pictures in a row of the sheet
_GAP, _TITLES = 6, 30
_WHEEL = 96  # pixels


def scene_sheet(titles: list[str], side: int, tokens: int) -> Sheet:
    """The layout of `scene_pictures` for one pair of pictures of this side, with what its colours mean."""
    rows = -(-(len(titles) + 1) // _ACROSS)  # the legend takes a place too
    places = [
        (column * (side + _GAP), row * (side + _TITLES) + _TITLES) for row in range(rows) for column in range(_ACROSS)
    ]
    boxes, (left, top) = places[: len(titles)], places[len(titles)]
    labels = [Label(x + side / 2, y - _TITLES / 2, title) for (x, y), title in zip(boxes, titles, strict=True)]
    across = max(1, side // 40)
    for index, colour in enumerate(token_colours(tokens).tolist()):
        row, column = divmod(index, across)
        labels.append(Label(left + 24 + 38 * column, top + 14 + 28 * row, str(index + 1), tuple(colour)))
    below = top + 14 + 28 * (-(-tokens // across)) + 8
    wheel = (left + 12, below, colour_wheel(_WHEEL))
    text = f"moved this way;\nrim: 1/{round(2 / FAR)} of the\npicture, or more"
    labels.append(Label(left + _WHEEL + 24, below + _WHEEL / 2, text, align="left"))
    labels.append(Label(left + side / 2, top - _TITLES / 2, "tokens and movement"))
    height = max(rows * (side + _TITLES), below + _WHEEL + _GAP)
    return Sheet(_ACROSS * (side + _GAP) - _GAP, height, boxes, labels, [wheel])
