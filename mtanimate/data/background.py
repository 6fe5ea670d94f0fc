"""Other places behind the people of training frames: a small data set has few, and a network learns them by heart."""

import numpy as np
import torch
from torch import Tensor

from mtanimate.geometry import resize
from mtanimate.mediapipe_models import model, starting

_PURPOSE = "telling people from what is behind them, for data.augmentation.background,"
SIDE = (0.3, 0.7)  # of the corner that becomes a background, as a fraction of the picture's side


class PersonMatte:
    """How much of each pixel is a person, by MediaPipe's selfie segmentation. Raises InputError without MediaPipe."""

    @staticmethod
    def check() -> None:
        """Raises InputError where MediaPipe or its model is not installed; starts nothing."""
        model("selfie_segmentation/selfie_segmentation.tflite", _PURPOSE)

    def __init__(self) -> None:
        self.check()
        with starting(_PURPOSE):
            from mediapipe.python.solutions import selfie_segmentation

            self._segmentation = selfie_segmentation.SelfieSegmentation(model_selection=0)
            self._segmentation.process(np.zeros((128, 128, 3), np.uint8))

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 1, H, W) in [0, 1]."""
        frames = pictures.permute(0, 2, 3, 1).numpy()
        mattes = [self._segmentation.process(np.ascontiguousarray(frame)).segmentation_mask for frame in frames]
        return torch.from_numpy(np.stack(mattes)[:, None])


def place_before(pair: Tensor, matte: Tensor, other: Tensor, random: np.random.Generator) -> Tensor:
    """The people of a pair of frames (2, 3, R, R) in [0, 1] before an upper corner of `other` (3, R, R), enlarged.

    A talking head leaves the upper corners free; what of it does reach into them is as good a background as any.
    It stands still, also where the clip's own moves. matte: (2, 1, R, R).
    """
    resolution = other.shape[-1]
    side = round(random.uniform(*SIDE) * resolution)
    if random.uniform() < 0.5:
        other = other.flip(-1)
    background = resize(other[None, :, :side, :side], (resolution, resolution))
    if random.uniform() < 0.5:
        background = background.flip(-1)
    return matte * pair + (1 - matte) * background
