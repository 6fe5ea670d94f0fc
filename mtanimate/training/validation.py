"""How well clips of people who are held out are reconstructed, every so often while training."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtanimate.data.clips import Clip
from mtanimate.data.pairs import group
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.video.crop import square_frames

FRAMES = 8  # of each clip, evenly spaced


@dataclass(frozen=True)
class Score:
    """Mean |difference| of pixels in [0, 1]: of the prediction, and of repeating the first frame."""

    error: float
    repeating: float


class Validation:
    """Reconstruction of a few clips, fixed at the start: the first frame is the source, others drive it."""

    def __init__(self, clips: list[Clip], count: int, resolution: int) -> None:
        """The first clip of each identity, then the second..., until there are `count`."""
        by_identity = group(clips)
        rounds = max((len(clips) for clips in by_identity), default=0)
        ordered = [clips[turn] for turn in range(rounds) for clips in by_identity if turn < len(clips)]
        self.clips: list[Tensor] = []
        self.skipped: list[str] = []
        for clip in ordered:
            if len(self.clips) == count:
                break
            try:
                self.clips.append(_some_frames(clip, resolution))
            except InputError as error:
                self.skipped.append(str(error))

    @torch.no_grad()
    def __call__(self, animator: Animator) -> Score:
        modes = [(module, module.training) for module in animator.modules()]  # frozen parts do not train
        animator.eval()
        errors, repeating = [], []
        for frames in self.clips:
            pictures = frames.to(animator.device) / 255
            source, driving = pictures[:1], pictures[1:]
            motion = animator.estimate_motion(driving)
            background = animator.predict_background(source, driving)
            prediction = animator.drive(animator.encode_source(source), motion, background)
            errors.append((prediction - driving).abs().mean().item())
            repeating.append((source - driving).abs().mean().item())
        for module, training in modes:
            module.training = training
        return Score(sum(errors) / len(errors), sum(repeating) / len(repeating))


def averaged(animator: Animator, ema: nn.Module | None) -> Animator:
    """The network that checkpoints hold: the running mean of the weights, where there is one."""
    if ema is None:
        return animator
    assert isinstance(ema.module, Animator)
    return ema.module


def _some_frames(clip: Clip, resolution: int) -> Tensor:
    """The first frame and up to `FRAMES` later ones: uint8 (N, 3, R, R)."""
    reader = clip.open()
    last = reader.frame_count - 1
    later = sorted({round(last * index / FRAMES) for index in range(1, FRAMES + 1)} - {0})
    return square_frames(reader.frames([0, *later]), resolution)
