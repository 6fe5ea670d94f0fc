"""The field's augmentation of a pair of frames: a recipe is drawn where pairs are read, and carried out in batches on
the device that trains.

Coordinates are those of the picture: -1 and 1 on the centres of its first and last pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtanimate.config import AugmentationConfig
from mtanimate.data.people import Backdrop
from mtanimate.data.warps import Glance
from mtanimate.faces.mesh import MIRROR
from mtanimate.geometry import coordinate_grid, inverse_2x2, sample, transform_points

# RGB -> luma and two chroma axes (YIQ): hue turns the chroma plane, saturation scales it.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
GREY = np.ones((3, 1)) * RGB_TO_YIQ[0]  # (3, 3): a colour -> its grey

INVERSION_STEPS = 12  # of a still's flow, for its landmarks


@dataclass(frozen=True)
class Recipe:
    """What becomes of a pair of raw frames; stacked, of B pairs.

    windows: (2, 2, 3), or (2, B, 2, 3); a pixel at (x, y) shows the raw frame's place window [x; y; 1], edges repeated.
    colour: (2, 3, 3), or (B, 2, 3, 3); a colour c becomes colour[0] c + colour[1] m, m the mean colour of the pair.
    backdrop: the place that people stand before instead of their own. flow: of a still, backward, (2, 33, 33, 2), or
    (2, B, 33, 33, 2): the raw frame is read through it. glance: where eyes look instead.
    """

    windows: Tensor
    colour: Tensor
    backdrop: Backdrop | None = None
    flow: Tensor | None = None
    glance: Glance | None = None

    @staticmethod
    def stack(recipes: list["Recipe"]) -> "Recipe":
        """Of B pairs. Those without a backdrop or flow get one that changes nothing, where any has one."""
        backdrops = [recipe.backdrop for recipe in recipes]
        flows = [recipe.flow for recipe in recipes]
        return Recipe(
            torch.stack([recipe.windows for recipe in recipes], dim=1),
            torch.stack([recipe.colour for recipe in recipes]),
            Backdrop.stack(backdrops),
            _stack_flows(flows),
            Glance.stack([recipe.glance for recipe in recipes]),
        )

    def each(self, do: Callable[[Tensor], Tensor]) -> "Recipe":
        """The same with every tensor changed by `do`."""
        backdrop = None if self.backdrop is None else self.backdrop.each(do)
        flow = None if self.flow is None else do(self.flow)
        glance = None if self.glance is None else self.glance.each(do)
        return Recipe(do(self.windows), do(self.colour), backdrop, flow, glance)


def _stack_flows(flows: list[Tensor | None]) -> Tensor | None:
    found = next((flow for flow in flows if flow is not None), None)
    if found is None:
        return None
    still = coordinate_grid(found.shape[1], found.shape[2], found).expand_as(found)
    return torch.stack([still if flow is None else flow for flow in flows], dim=1)


# Drawing


def draw_flips(config: AugmentationConfig, random: np.random.Generator) -> tuple[bool, bool]:
    """Whether a pair is flipped in time, and in space; never both."""
    if random.uniform() < config.time_flip:
        return True, False
    return False, random.uniform() < config.horizontal_flip


def draw_windows(config: AugmentationConfig, mirrored: bool, size: int, random: np.random.Generator) -> Tensor:
    """`Recipe.windows` of a pair of `size` x `size` pixels: the flip in space, rotation, a window or two."""
    windows = np.tile(np.eye(2, 3), (2, 1, 1))
    if config.rotation or config.window != (1, 1):
        own = random.uniform() < config.own_window
        angle = random.uniform(-config.rotation, config.rotation)
        windows[:] = _window(config, angle, size, random)
        if own:
            windows[1] = _window(config, angle, size, random)
    if mirrored:
        windows[:, 0] *= -1
    return torch.from_numpy(windows).float()


def _window(config: AugmentationConfig, degrees: float, size: int, random: np.random.Generator) -> np.ndarray:
    """(2, 3): turned about the picture's centre, then seen through a random square window in it."""
    side = random.uniform(*config.window)
    centre = random.uniform(-1, 1, 2) * abs(1 - side) * size / (size - 1)  # the picture's edge is half a pixel outside
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([side * turn, turn @ centre])


def draw_colour(config: AugmentationConfig, random: np.random.Generator) -> Tensor:
    """`Recipe.colour`: brightness, contrast about the pair's mean grey, saturation and hue, in random order."""
    factors = [(_brightness, config.brightness), (_contrast, config.contrast), (_saturation, config.saturation)]
    changes = [change(random.uniform(1 - x, 1 + x)) for change, x in factors if x]
    if config.hue:
        changes.append(_hue(random.uniform(-config.hue, config.hue)))
    own, mean = np.eye(3), np.zeros((3, 3))
    for index in random.permutation(len(changes)):
        of_own, of_mean = changes[index]
        # The mean colour, too, has changed by now: to (own + mean) m.
        own, mean = of_own @ own, of_own @ mean + of_mean @ (own + mean)
    return torch.from_numpy(np.stack([own, mean])).float()


# Each change of a colour: what (3, 3) it multiplies the colour by, and what the mean colour of the pair.


def _brightness(factor: float) -> tuple[np.ndarray, np.ndarray]:
    return factor * np.eye(3), np.zeros((3, 3))


def _contrast(factor: float) -> tuple[np.ndarray, np.ndarray]:
    return factor * np.eye(3), (1 - factor) * GREY


def _saturation(factor: float) -> tuple[np.ndarray, np.ndarray]:
    return factor * np.eye(3) + (1 - factor) * GREY, np.zeros((3, 3))


def _hue(turns: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return YIQ_TO_RGB @ turn @ RGB_TO_YIQ, np.zeros((3, 3))


# Carrying out


@torch.no_grad()
def augment(frames: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor | None]:
    """Raw frames of B pairs, (2, B, 3, R, R) uint8, by a stacked recipe -> the same shape in [0, 1]; and how much of
    each pixel is a person, (2, B, 1, R, R), where there is another background.

    Every raw frame is read once, bilinearly. Outside of autocast: coordinates in half precision would be off by pixels.
    """
    size, windows = frames.shape[-1], recipe.windows.flatten(0, 1)
    grid = coordinate_grid(size, size, windows)
    grid = transform_points(windows[:, None, None, :, :2], grid) + windows[:, None, None, :, 2]
    grid = grid.clamp(-1, 1)
    places = grid
    if recipe.flow is not None:
        places = sample(recipe.flow.flatten(0, 1).permute(0, 3, 1, 2), grid, exact=True).permute(0, 2, 3, 1)
    origins = places if recipe.glance is None else recipe.glance.origins(places)
    pictures = sample(frames.flatten(0, 1).to(grid.dtype), origins, exact=True) / 255
    people = None
    if recipe.backdrop is not None:
        pictures, share = recipe.backdrop.behind(pictures, places, grid)
        people = share.unflatten(0, frames.shape[:2])
    return _coloured(pictures.unflatten(0, frames.shape[:2]), recipe.colour).clamp(0, 1), people


def _coloured(pictures: Tensor, colour: Tensor) -> Tensor:
    """(2, B, 3, R, R), colour (B, 2, 3, 3); written out: reduced-precision matrix products would band colours."""
    mean = pictures.mean(dim=(0, 3, 4))
    constant = (colour[:, 1] * mean[:, None]).sum(dim=-1)
    weights = colour[:, 0, :, :, None, None]  # (B, to, from, 1, 1)
    mixed = constant[:, :, None, None]
    for channel in range(3):
        mixed = torch.addcmul(mixed, weights[:, :, channel], pictures[:, :, channel : channel + 1])
    return mixed


# Landmarks


def carry(meshes: Tensor, recipe: Recipe) -> Tensor:
    """Vertices of the raw frames' faces (2, 478, 2), not a number where there is none -> where they are in the
    pictures that `augment` makes of them. A mirrored face has its left and right vertices swapped."""
    places = meshes if recipe.glance is None else recipe.glance.carry(meshes)
    places = places if recipe.flow is None else _through(recipe.flow, places)
    matrix, offset = recipe.windows[:, :, :2], recipe.windows[:, None, :, 2]
    places = transform_points(inverse_2x2(matrix)[:, None], places - offset)
    mirrored = bool(torch.det(matrix[0]) < 0)
    return places[:, MIRROR] if mirrored else places


def _through(flow: Tensor, origins: Tensor) -> Tensor:
    """Where a backward flow (2, h, w, 2) brings `origins` (2, N, 2): the inverse, by fixed-point steps."""
    shift = (flow - coordinate_grid(flow.shape[1], flow.shape[2], flow)).permute(0, 3, 1, 2)
    places = origins
    for _ in range(INVERSION_STEPS):
        places = origins - sample(shift, places[:, None], exact=True)[:, :, 0].transpose(1, 2)
    return places
