"""Facial landmarks in training frames, by MediaPipe's face mesh (Kartynnik et al., 2019)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.faces.mesh import VERTICES, model, starting
from mtanimate.geometry import sample, transform_points

_FACES_FOR = "finding landmarks for loss.landmarks, loss.close_up and data.stills"


class FaceLandmarks:
    """Of the most certain face of each picture; each picture stands alone. Raises InputError without MediaPipe."""

    @staticmethod
    def check() -> None:
        """Raises InputError where MediaPipe or its model is not installed; starts nothing."""
        model("face_landmark/face_landmark_with_attention.tflite", _FACES_FOR)

    def __init__(self) -> None:
        self.check()
        with starting(_FACES_FOR):
            from mediapipe.python.solutions import face_mesh

            self._mesh = face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
            self._mesh.process(np.zeros((128, 128, 3), np.uint8))

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 478, 2), (x, y) in [-1, 1]; not a number where there is no face."""
        frames = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(np.ascontiguousarray(self.meshes(frames)[:, :, :2]))

    def meshes(self, frames: np.ndarray) -> np.ndarray:
        """As `mesh` of each of uint8 (N, H, W, 3): (N, 478, 3) float32; not a number where there is no face."""
        found = np.full((len(frames), VERTICES, 3), np.nan, np.float32)
        for row, frame in zip(found, frames, strict=True):
            mesh = self.mesh(np.ascontiguousarray(frame))
            if mesh is not None:
                row[...] = mesh
        return found

    def mesh(self, frame: np.ndarray) -> np.ndarray | None:
        """All points of the face in uint8 (H, W, 3), W = H: (478, 3), x and y in [-1, 1], z to the same scale,
        smaller nearer to the camera; None where there is no face."""
        faces = self._mesh.process(frame).multi_face_landmarks
        if not faces:
            return None
        places = np.array([(point.x, point.y, point.z) for point in faces[0].landmark])
        size = frame.shape[0]
        return (2 * size * places - np.array([size, size, 0])) / (size - 1)


_PEOPLE_FOR = "telling people from what is behind them, for data.augmentation.background,"
MATTE = 64  # the side of mattes, in pixels
SIDE = (0.3, 0.7)  # of the corner that becomes a background, as a fraction of the picture's side


class PersonMatte:
    """How much of each pixel is a person, by MediaPipe's selfie segmentation. Raises InputError without MediaPipe."""

    @staticmethod
    def check() -> None:
        """Raises InputError where MediaPipe or its model is not installed; starts nothing."""
        model("selfie_segmentation/selfie_segmentation.tflite", _PEOPLE_FOR)

    def __init__(self) -> None:
        self.check()
        with starting(_PEOPLE_FOR):
            from mediapipe.python.solutions import selfie_segmentation

            self._segmentation = selfie_segmentation.SelfieSegmentation(model_selection=0)
            self._segmentation.process(np.zeros((128, 128, 3), np.uint8))

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 64, 64) uint8, 255 where all is a person."""
        frames = pictures.permute(0, 2, 3, 1).numpy()
        mattes = [self._segmentation.process(np.ascontiguousarray(frame)).segmentation_mask for frame in frames]
        return (F.adaptive_avg_pool2d(torch.from_numpy(np.stack(mattes)), MATTE) * 255).round().byte()


@dataclass(frozen=True)
class Backdrop:
    """Another place for the people of a pair; stacked, of B pairs.

    mattes: how much of each pixel of the raw frames is a person, (2, 64, 64) uint8, or (2, B, 64, 64). picture: another
    clip's frame, (3, R, R) uint8, or (B, 3, R, R). corner: affine, from the pair's coordinates into the picture's,
    (2, 3), or (B, 2, 3).
    """

    mattes: Tensor
    picture: Tensor
    corner: Tensor

    @staticmethod
    def draw(mattes: Tensor, picture: Tensor, random: np.random.Generator) -> "Backdrop":
        """An upper corner of `picture`, enlarged; each way round.

        A talking head leaves the upper corners free; what of it does reach into them is as good a background as any.
        It stands still, also where the clip's own moves.
        """
        size = picture.shape[-1]
        side = round(random.uniform(*SIDE) * size) / size
        right, mirrored = random.uniform(size=2) < 0.5
        left_to_right = side if right == mirrored else -side
        edge = (side - 1) * size / (size - 1)  # the picture's edge is half a pixel outside of -1 and 1
        corner = torch.tensor([[left_to_right, 0, -edge if right else edge], [0, side, edge]]).float()
        return Backdrop(mattes, picture, corner)

    @staticmethod
    def stack(backdrops: list["Backdrop | None"]) -> "Backdrop | None":
        """None where no pair has one; else the pairs that have none are all person."""
        found = next((backdrop for backdrop in backdrops if backdrop is not None), None)
        if found is None:
            return None
        nothing = Backdrop(torch.full_like(found.mattes, 255), torch.zeros_like(found.picture), found.corner)
        all_of_them = [backdrop or nothing for backdrop in backdrops]
        return Backdrop(
            torch.stack([backdrop.mattes for backdrop in all_of_them], dim=1),
            torch.stack([backdrop.picture for backdrop in all_of_them]),
            torch.stack([backdrop.corner for backdrop in all_of_them]),
        )

    def each(self, do: Callable[[Tensor], Tensor]) -> "Backdrop":
        """The same with every tensor changed by `do`."""
        return Backdrop(do(self.mattes), do(self.picture), do(self.corner))

    def behind(self, pictures: Tensor, places: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (2 B, 3, R, R) in [0, 1] of sources, then of driving frames, before the stacked backdrop; and how
        much of each pixel is a person, (2 B, 1, R, R).

        places: (2 B, R, R, 2), where each pixel is in its raw frame; grid: where it is in the pair, which is the same
        but for stills.
        """
        count, size = len(self.picture), pictures.shape[-1]
        mattes = self.mattes.flatten(0, 1)[:, None].to(grid.dtype)
        # -1 and 1 on the edges: there the coarse matte agrees with the picture.
        share = sample(mattes, places * ((size - 1) / size), padding="border") / 255
        corner = self.corner.repeat(2, 1, 1)[:, None, None]
        seen = transform_points(corner[..., :2], grid) + corner[..., 2]
        seen = seen.unflatten(0, (2, count)).transpose(0, 1).flatten(1, 2)  # (B, 2 R, R, 2): one picture for both
        behind = sample(self.picture.to(grid.dtype), seen, exact=True) / 255
        behind = behind.unflatten(2, (2, size)).permute(2, 0, 1, 3, 4).flatten(0, 1)
        return torch.lerp(behind, pictures, share), share
