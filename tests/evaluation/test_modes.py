"""How a source is driven where motion between people is measured: as `animate` drives it."""

import numpy as np
import pytest
import torch
from foreign import TPSMM
from tiny import moving_square, write_video

from mtanimate import Predictor
from mtanimate.evaluation.evaluator import Clock, Evaluator
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.faces.detection import square_frames
from mtanimate.inference.prefetch import to_frames
from mtanimate.models.animator import Animator
from mtanimate.video.footage import open_footage


@pytest.mark.parametrize("mode", ["absolute", "avd"])
def test_a_mode_is_that_of_animate(mode, tmp_path):
    torch.manual_seed(0)
    predictor = Predictor(Animator(TPSMM).eval(), "fp32", pytest.fail)
    clip = open_footage(write_video(tmp_path / "clip.mp4", moving_square(6, 0.4)))
    evaluator = Evaluator(predictor, mode, None, None, None, SampleFolders(tmp_path), 2, pytest.fail)
    source = evaluator.source(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    driven = np.concatenate([batch.pictures for batch in evaluator.drive(clip, source, Clock())])
    driving = square_frames(np.concatenate(list(clip.batches(6, step=2))), 64)
    encoded, motion, background = predictor.encode(source.seen), predictor.estimate(driving), None
    if mode == "avd":
        motion = predictor.disentangle(encoded.motion, motion)
    else:
        background = predictor.predict_background(encoded, driving)
    assert np.array_equal(driven, to_frames(predictor.drive(encoded, motion, background)))
