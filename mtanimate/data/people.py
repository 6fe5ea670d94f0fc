"""People in training frames: facial landmarks and mattes by MediaPipe, and other backgrounds behind people."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.faces.mesh import VERTICES, model, starting
from mtanimate.geometry import sample, transform_points

MATTE = 64  # side of a matte, in pixels
_SIDE = (0.3, 0.7)  # range of the side of the corner that becomes a background, as a fraction of the picture's side
_FACES_FOR = "finding landmarks for loss.landmarks, loss.close_up and data.stills"
_PEOPLE_FOR = "telling people from what is behind them, for data.augmentation.background,"


class FaceLandmarks:
    """Finds the landmarks of the most certain face in each picture, by the face mesh (Kartynnik et al., 2019).

    Pictures are independent of each other. Raises InputError without MediaPipe.
    """

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
        """Landmarks of (N, 3, H, W) in [0, 1]: (N, 478, 2), (x, y) in [-1, 1], NaN where there is no face."""
        frames = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(np.ascontiguousarray(self.meshes(frames)[:, :, :2]))

    def meshes(self, frames: np.ndarray) -> np.ndarray:
        """`mesh` of each of uint8 (N, H, W, 3): float32 (N, 478, 3), NaN where there is no face."""
        found = np.full((len(frames), VERTICES, 3), np.nan, np.float32)
        for row, frame in zip(found, frames, strict=True):
            mesh = self.mesh(np.ascontiguousarray(frame))
            if mesh is not None:
                row[...] = mesh
        return found

    def mesh(self, frame: np.ndarray) -> np.ndarray | None:
        """The face mesh of one picture.

        Args:
            frame: uint8 (H, W, 3), square.

        Returns:
            (478, 3): x and y in [-1, 1], and z to the same scale, smaller nearer to the camera. None where there is no
            face.
        """
        faces = self._mesh.process(frame).multi_face_landmarks
        if not faces:
            return None
        places = np.array([(point.x, point.y, point.z) for point in faces[0].landmark])
        size = frame.shape[0]
        return (2 * size * places - np.array([size, size, 0])) / (size - 1)


class PersonMatte:
    """Finds how much of each pixel is a person, by the selfie segmentation. Raises InputError without MediaPipe."""

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
        """Mattes of uint8 (N, 3, H, W): uint8 (N, 64, 64), 255 where everything is a person."""
        frames = pictures.permute(0, 2, 3, 1).numpy()
        mattes = [self._segmentation.process(np.ascontiguousarray(frame)).segmentation_mask for frame in frames]
        return (F.adaptive_avg_pool2d(torch.from_numpy(np.stack(mattes)), MATTE) * 255).round().byte()


@dataclass(frozen=True)
class Backdrop:
    """Another background for the people in a pair; or stacked, of B pairs.

    Attributes:
        mattes: uint8 (2, 64, 64), or (2, B, 64, 64): how much of each pixel of the raw frames is a person.
        picture: uint8 (3, R, R), or (B, 3, R, R): a frame of another clip.
        corner: (2, 3), or (B, 2, 3): the affine map from the pair's coordinates to the picture's.
    """

    mattes: Tensor
    picture: Tensor
    corner: Tensor

    @staticmethod
    def draw(mattes: Tensor, picture: Tensor, random: np.random.Generator) -> "Backdrop":
        """Take an upper corner of `picture`, enlarged, and mirrored half of the time.

        A talking head leaves the upper corners free, and where it reaches into them, it is a good background, too. The
        background stands still, even if the clip's own moves.
        """
        size = picture.shape[-1]
        side = round(random.uniform(*_SIDE) * size) / size
        right, mirrored = random.uniform(size=2) < 0.5
        left_to_right = side if right == mirrored else -side
        edge = (side - 1) * size / (size - 1)  # the picture's edge is half a pixel outside of -1 and 1
        corner = torch.tensor([[left_to_right, 0, -edge if right else edge], [0, side, edge]]).float()
        return Backdrop(mattes, picture, corner)

    @staticmethod
    def stack(backdrops: list["Backdrop | None"]) -> "Backdrop | None":
        """Stack those of B pairs; pairs without one count as person everywhere. None if no pair has one."""
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
        """The same with `do` applied to every tensor."""
        return Backdrop(do(self.mattes), do(self.picture), do(self.corner))

    def behind(self, pictures: Tensor, places: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Put the background of B pairs behind the people in them.

        Args:
            pictures: (2 B, 3, R, R) in [0, 1]: the sources, then the driving frames.
            places: (2 B, R, R, 2): the place of each pixel in its raw frame.
            grid: The same shape: the place of each pixel in the pair; it differs for stills only.

        Returns:
            The pictures, and how much of each pixel is a person, (2 B, 1, R, R) in [0, 1].
        """
        count, size = len(self.picture), pictures.shape[-1]
        mattes = self.mattes.flatten(0, 1)[:, None].to(grid.dtype)
        # With -1 and 1 on the edges, the coarse matte is aligned with the picture.
        share = sample(mattes, places * ((size - 1) / size), padding="border") / 255
        corner = self.corner.repeat(2, 1, 1)[:, None, None]
        seen = transform_points(corner[..., :2], grid) + corner[..., 2]
        seen = seen.unflatten(0, (2, count)).transpose(0, 1).flatten(1, 2)  # (B, 2 R, R, 2): one picture for both
        behind = sample(self.picture.to(grid.dtype), seen, exact=True) / 255
        behind = behind.unflatten(2, (2, size)).permute(2, 0, 1, 3, 4).flatten(0, 1)
        return torch.lerp(behind, pictures, share), share
