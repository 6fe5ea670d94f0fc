"""Drawing motion on pictures: keypoints, local affine frames, masks and flow, each motion token in its own colour."""

import colorsys
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from mtanimate.config.model import SPLINE_POINTS
from mtanimate.geometry import coordinate_grid, resize
from mtanimate.models.motion import Motion

Point = tuple[float, float]  # x, y in pixels, from the picture's top left corner; pixel 0's centre is at 0.5
Colour = tuple[int, ...]
_FINE = 3  # supersampling: Pillow's shapes have hard edges
_WHITE = (255, 255, 255)
_AXIS = 0.16  # drawn length of a median axis, in coordinates
FAR = 0.25  # the distance of full colour, in coordinates: an eighth of the picture
_ARROWS = 12  # in each direction
_NEAR = 0.01  # less movement, in coordinates, has no arrow


def token_colours(count: int) -> Tensor:
    """The colours of motion tokens, with hues a golden angle apart, so that neighbours in number differ most.

    Returns:
        (count, 3), RGB in [0, 1].
    """
    hues = [(0.02 + 0.618034 * index) % 1 for index in range(count)]
    values = [(0.95, 1.0), (0.75, 0.8), (0.5, 1.0)]
    return torch.tensor([colorsys.hsv_to_rgb(hue, *values[i // 6 % 3]) for i, hue in enumerate(hues)])


class Canvas:
    """Draws on a copy of a picture.

    Points are (x, y) in pixels from the top left corner; the centre of pixel 0 is at 0.5.

    Args:
        picture: uint8 RGB (H, W, 3).
    """

    def __init__(self, picture: np.ndarray) -> None:
        self._under = Image.fromarray(picture)
        self._layer = Image.new("RGBA", (self._under.width * _FINE, self._under.height * _FINE))
        self._draw = ImageDraw.Draw(self._layer)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Draws a disc; radius in pixels."""
        self._draw.circle(_fine(centre), radius * _FINE, fill=(*colour, 255))

    def line(self, start: Point, end: Point, colour: Colour, thickness: float) -> None:
        """Draws a line; thickness in pixels."""
        self._draw.line((_fine(start), _fine(end)), fill=(*colour, 255), width=max(1, round(thickness * _FINE)))

    def arrow(self, start: Point, end: Point, colour: Colour, thickness: float) -> None:
        """Draws an arrow with its tip at `end`."""
        self.line(start, end, colour, thickness)
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        wing = min(5 * thickness, 0.6 * math.dist(start, end) + thickness)
        sides = (angle - 0.5, angle + 0.5)
        corners = [(end[0] - wing * math.cos(side), end[1] - wing * math.sin(side)) for side in sides]
        self._draw.polygon([_fine(end), *map(_fine, corners)], fill=(*colour, 255))

    def picture(self) -> np.ndarray:
        """The result, uint8 RGB (H, W, 3)."""
        layer = self._layer.reduce(_FINE)
        return np.array(Image.alpha_composite(self._under.convert("RGBA"), layer).convert("RGB"))


def draw_keypoints(picture: np.ndarray, keypoints: Tensor, colours: Tensor | None = None) -> np.ndarray:
    """Draws discs at keypoints; those outside are drawn at the rim.

    Args:
        picture: uint8 RGB (H, W, 3).
        keypoints: (K, 2), (x, y) in [-1, 1].
        colours: (K, 3) in [0, 1]; None: those of the tokens.

    Returns:
        uint8 RGB (H, W, 3).
    """
    canvas = Canvas(picture)
    _discs(canvas, keypoints, _rgb(token_colours(len(keypoints)) if colours is None else colours), picture.shape)
    return canvas.picture()


def draw_motion(picture: np.ndarray, motion: Motion, scale: float) -> np.ndarray:
    """Draws keypoints and local affine frames: A (1, 0) as a thick line, A (0, 1) as a thin one.

    Axes that are known up to sign are drawn both ways. Splines have none: their control points are drawn alone, those
    of a spline in one colour.

    Args:
        picture: uint8 RGB (H, W, 3).
        motion: of batch size 1.
        scale: coordinates for one unit of A; see `axis_scale`.

    Returns:
        uint8 RGB (H, W, 3).
    """
    canvas = Canvas(picture)
    colours = _rgb(part_colours(motion))
    if motion.kind == "splines":
        _discs(canvas, motion.keypoints[0], colours, picture.shape, 0.8)
        return canvas.picture()
    thickness = _radius(picture.shape) / 2
    points, matrices = motion.keypoints[0].clamp(-1, 1).cpu(), scale * motion.affine[0].cpu()
    for point, matrix, colour in zip(points, matrices, colours, strict=True):
        for tip, thick in ((matrix[:, 1], 0.6 * thickness), (matrix[:, 0], thickness)):
            start = _pixel((point - tip if motion.kind == "axes" else point).tolist(), picture.shape)
            end = _pixel((point + tip).tolist(), picture.shape)
            canvas.line(start, end, _WHITE, thick + 2)
            canvas.line(start, end, colour, thick)
    _discs(canvas, motion.keypoints[0], colours, picture.shape, 0.7)
    return canvas.picture()


def part_colours(motion: Motion) -> Tensor:
    """The colour of each keypoint, (K, 3) in [0, 1]: its token's, or that of the spline that it belongs to."""
    count = motion.keypoints.shape[1]
    if motion.kind == "splines":
        return token_colours(count // SPLINE_POINTS).repeat_interleave(SPLINE_POINTS, dim=0)
    return token_colours(count)


def draw_contours(picture: np.ndarray, masks: Tensor) -> np.ndarray:
    """Draws the outline of each region in which a part has the largest mask, in the part's colour.

    Args:
        picture: uint8 RGB (H, W, 3).
        masks: (K+1, h, w), the background's first.

    Returns:
        uint8 RGB (H, W, 3).
    """
    size = (picture.shape[0], picture.shape[1])
    largest = resize(masks[None].float(), size)[0].argmax(dim=0, keepdim=True).cpu()
    # A pixel is on an outline where another part, or the background, is next to it.
    around = F.pad(largest[None].float(), (1, 1, 1, 1), mode="replicate")
    least, most = -F.max_pool2d(-around, 3, 1)[0, 0], F.max_pool2d(around, 3, 1)[0, 0]
    outline = (least != most) & (largest[0] > 0)
    colours = (token_colours(len(masks) - 1) * 255).round().to(torch.uint8)
    drawn = torch.from_numpy(picture.copy())
    drawn[outline] = colours[largest[0][outline] - 1]
    return drawn.numpy()


def axis_scale(motion: Motion) -> float:
    """The scale at which the median axis of this motion's first picture is drawn `_AXIS` long."""
    length = motion.affine[0].norm(dim=-2).median().item()
    return _AXIS / max(length, 1e-6)


def colour_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Blends the parts' colours by their masks; the background is grey.

    Args:
        masks: (B, K+1, h, w), the background's first.
        size: (height, width) of the result.

    Returns:
        (B, 3, *size) in [0, 1].
    """
    colours = torch.cat([torch.full((1, 3), 0.25), token_colours(masks.shape[1] - 1)]).to(masks)
    return resize(torch.einsum("bkhw,kc->bchw", masks, colours), size)


def movement(flow: Tensor) -> Tensor:
    """How far the content of each place moved.

    Args:
        flow: backward flow (B, h, w, 2), the source coordinates to read.

    Returns:
        (B, h, w, 2), driving minus source coordinates.
    """
    return coordinate_grid(flow.shape[1], flow.shape[2], like=flow) - flow


def colour_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Colours a flow: direction as hue, distance as chroma; what does not move is white.

    Args:
        flow: backward flow (B, h, w, 2).
        size: (height, width) of the result.

    Returns:
        (B, 3, *size) in [0, 1].
    """
    return _colours(resize(movement(flow).permute(0, 3, 1, 2).float(), size))


def draw_arrows(picture: np.ndarray, flow: Tensor) -> np.ndarray:
    """Draws arrows from where things were in the source to where they are.

    Args:
        picture: uint8 RGB (H, W, 3).
        flow: backward flow (h, w, 2).

    Returns:
        uint8 RGB (H, W, 3).
    """
    height, width = picture.shape[:2]
    moved = resize(movement(flow[None]).permute(0, 3, 1, 2).float(), (_ARROWS, _ARROWS))[0].permute(1, 2, 0).cpu()
    canvas = Canvas(picture)
    for row in range(_ARROWS):
        for column in range(_ARROWS):
            x, y = moved[row, column].tolist()
            if math.hypot(x, y) < _NEAR:
                continue
            head = ((column + 0.5) / _ARROWS * width, (row + 0.5) / _ARROWS * height)
            canvas.arrow(
                (head[0] - x * width / 2, head[1] - y * height / 2), head, (40, 40, 40), min(height, width) / 200
            )
    return canvas.picture()


def colour_wheel(side: int) -> np.ndarray:
    """The legend of `colour_flow`, uint8 RGB (side, side, 3), on white; its rim is a distance of `FAR`."""
    grid = coordinate_grid(side, side, like=torch.zeros(())) * 1.05
    inside = grid.norm(dim=-1) <= 1
    colours = _colours((FAR * grid).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    colours[~inside] = 1
    return (colours * 255).round().to(torch.uint8).numpy()


def _fine(point: Point) -> Point:
    return point[0] * _FINE, point[1] * _FINE


def _discs(canvas: Canvas, keypoints: Tensor, colours: list[Colour], shape: tuple[int, ...], size: float = 1) -> None:
    radius = size * _radius(shape)
    for point, colour in zip(keypoints.clamp(-1, 1).tolist(), colours, strict=True):
        centre = _pixel(point, shape)
        canvas.disc(centre, radius + 1, _WHITE)
        canvas.disc(centre, radius, colour)


def _radius(shape: tuple[int, ...]) -> float:
    return max(2.5, min(shape[:2]) / 45)


def _pixel(point: list[float], shape: tuple[int, ...]) -> Point:
    """A coordinate in pixels: -1 and 1 are the centres of the first and the last pixel."""
    return (point[0] + 1) / 2 * (shape[1] - 1) + 0.5, (point[1] + 1) / 2 * (shape[0] - 1) + 0.5


def _rgb(colours: Tensor) -> list[Colour]:
    return [tuple(colour) for colour in (colours * 255).round().int().tolist()]


def _colours(moved: Tensor) -> Tensor:
    """Colours movement (B, 2, H, W) as (B, 3, H, W) in [0, 1]: hues of equal lightness and chroma in OKLab (Ottosson,
    2020).
    """
    far = (moved.norm(dim=1) / FAR).clamp_max(1)
    angle = torch.atan2(moved[:, 1], moved[:, 0])
    a, b = 0.13 * far * torch.cos(angle), 0.13 * far * torch.sin(angle)
    light = 1 - 0.28 * far
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    linear = torch.stack([red, green, blue], dim=1).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)
