"""Results at a photograph's own size against the network's picture, enlarged: how sharp, how near to the truth.

python benchmarks/native_resolution.py PHOTOGRAPH...

Large talking heads are rare, so the truth is made of large photographs: a head turns, nods and leans by a smooth warp,
as when `mtanimate train` uses stills. The network sees the photograph and the warped one, reduced to its resolution,
and takes over the pose. The last row reads the photograph by the true warp in place of the network's flow: it shows
what a better flow would bring.

Needs the extras `faces`, `eval` and `benchmarks`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import Tensor
from torch.nn import functional as F

from mtanimate.data import warps
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.faces.framing import frame_source
from mtanimate.geometry import coordinate_grid
from mtanimate.inference.enlargement import MIDDLE, Layers, SourcePixels
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import to_frames
from mtanimate.metrics.detectors import DlibFaces, FaceMesh, Frames
from mtanimate.metrics.measures import psnr, ssim
from mtanimate.video import read_image

FRAMES = 5
AMOUNT = 0.5  # of the warps that train: heads move as in talking


def turned_heads(square: np.ndarray, mesh: np.ndarray) -> tuple[Tensor, Tensor]:
    """Warped pictures, uint8 (FRAMES, 3, S, S), and their flows, (FRAMES, 33, 33, 2). mesh: (478, 3) in pixels."""
    side = len(square)
    points = mesh / side * 2 - [1, 1, 0]
    still = coordinate_grid(warps.GRID, warps.GRID, like=torch.zeros(1))
    random = np.random.default_rng(5)
    flows = torch.stack([warps.turned(points, random) for _ in range(FRAMES)]).float()
    flows = torch.lerp(still.expand_as(flows), flows, AMOUNT)
    picture = torch.from_numpy(square).permute(2, 0, 1)[None].float().expand(FRAMES, -1, -1, -1)
    grid = F.interpolate(flows.permute(0, 3, 1, 2), (side, side), mode="bicubic", align_corners=True)
    grid = grid.permute(0, 2, 3, 1)
    warped = F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=True)
    return warped.round().clamp(0, 255).to(torch.uint8), flows


def by_true_warp(layers: Layers, flows: Tensor) -> Layers:
    """Layers that show the photograph, warped as the truth was."""
    still = coordinate_grid(warps.GRID, warps.GRID, like=flows)
    movement = (flows - still).permute(0, 3, 1, 2) / 2
    painted = torch.full_like(layers.painted, MIDDLE)
    return Layers(layers.prediction, painted, torch.ones_like(layers.gate), movement, inset=0)


def enlarged(layers: Layers, side: int) -> np.ndarray:
    small = torch.from_numpy(to_frames(layers.prediction)).permute(0, 3, 1, 2)
    large = F.interpolate(small, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return large.permute(0, 2, 3, 1).contiguous().numpy()


def gradient(frames: np.ndarray, face: tuple[slice, slice]) -> float:
    """The mean length of the gradient of luminance in the face."""
    luminance = frames.astype(float) @ [0.299, 0.587, 0.114]
    down, across = np.gradient(luminance, axis=(1, 2))
    return float(np.hypot(down, across)[:, face[0], face[1]].mean())


class Judge:
    """Compares frames with the truth."""

    def __init__(self, truth: np.ndarray, mesh: np.ndarray, faces: DlibFaces) -> None:
        self.truth, self.faces = truth, faces
        left, top = mesh[:, :2].min(axis=0).clip(0).astype(int)
        right, bottom = mesh[:, :2].max(axis=0).astype(int)
        self.face = slice(top, bottom), slice(left, right)
        self.identity = self._identity(truth)

    def __call__(self, frames: np.ndarray) -> tuple[float, float, float, float]:
        """PSNR, SSIM, gradient as a share of the truth's, and AED."""
        made, true = (torch.from_numpy(each).permute(0, 3, 1, 2).float() / 255 for each in (frames, self.truth))
        aed = np.linalg.norm(self._identity(frames) - self.identity, axis=1)
        sharpness = gradient(frames, self.face) / gradient(self.truth, self.face)
        likeness = float(np.mean([ssim(t[None], m[None]).mean() for t, m in zip(true, made, strict=True)]))
        return psnr(float((made - true).square().mean())), likeness, sharpness, float(np.nanmean(aed))

    def _identity(self, pictures: np.ndarray) -> np.ndarray:
        frames = Frames(pictures, "photograph", range(len(pictures)), generated=False)
        return self.faces.descriptors(frames, self.faces.landmarks(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sharpness of results at the source's own size.")
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="default")
    options = parser.parse_args()
    predictor, meshes, faces = Predictor.load(options.checkpoint, precision="fp32"), FaceMesh(), DlibFaces()
    print(describe())
    print(f"{'photograph':24} side  {'way':12} PSNR   SSIM   gradient  AED")
    rows: dict[str, list[tuple[float, ...]]] = {"enlarged": [], "own size": [], "true warp": []}
    for file in options.photographs:
        picture = read_image(file)
        square = frame_source(picture, "auto", "largest", print)[0]
        cut = np.ascontiguousarray(square.cut(picture))
        mesh = meshes.landmarks(Frames(cut[None], file.name, range(1), generated=False))[0]
        truth, flows = turned_heads(cut, mesh)
        frames = truth.permute(0, 2, 3, 1).contiguous().numpy()
        source = predictor.encode(resize_frames(cut[None], predictor.resolution))
        layers = predictor.drive_layers(source, predictor.estimate(resize_frames(frames, predictor.resolution)))
        judge, pixels = Judge(frames, mesh, faces), SourcePixels(cut, Square(0, 0, square.side), square.side)
        made = {
            "enlarged": enlarged(layers, square.side),
            "own size": pixels.render(layers),
            "true warp": pixels.render(by_true_warp(layers, flows)),
        }
        for way, results in made.items():
            rows[way].append(judge(results))
            print(f"{file.name:24} {square.side:4}  {way:12}" + _line(rows[way][-1]))
    for way, figures in rows.items():
        print(f"{'mean':24}       {way:12}" + _line(np.mean(figures, axis=0)))


def _line(figures: tuple[float, ...] | np.ndarray) -> str:
    return "{:5.2f}  {:.4f}  {:.3f}    {:.3f}".format(*figures)


if __name__ == "__main__":
    main()
