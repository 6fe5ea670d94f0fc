"""Facial landmarks in training frames: of a drawn face whose place is known; and what is said without MediaPipe."""

import importlib.util

import pytest
import torch
from drawn_face import scene

from mtanimate.data.people import FaceLandmarks
from mtanimate.errors import InputError
from mtanimate.faces import mesh as mediapipe_models
from mtanimate.models.losses.face import EYES, LIPS, contour_points

needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="landmarks need mediapipe: pip install 'mtanimate[mediapipe]'"
)


def pictures(*frames):
    return torch.stack([torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in frames])


@needs_mediapipe
def test_the_landmarks_of_a_drawn_face_are_where_it_is():
    """A face drawn with its eyes at 0.45 and its mouth at 0.78 of its square's height."""
    found = FaceLandmarks()(pictures(scene(128, 128, (14, 14, 100)), scene(128, 128, (0, 20, 100))))
    assert found.shape == (2, 478, 2)
    for landmarks, (left, top) in zip(contour_points(found), ((14, 14), (0, 20)), strict=True):
        for part, y in ((LIPS, 0.785), (EYES, 0.45)):
            x, height = landmarks[part].mean(dim=0).tolist()
            assert (x + 1) / 2 * 127 == pytest.approx(left + 50, abs=4)
            assert (height + 1) / 2 * 127 == pytest.approx(top + 100 * y, abs=6)


@needs_mediapipe
def test_no_face_has_no_landmarks_and_the_next_picture_has():
    found = FaceLandmarks()(pictures(scene(128, 128), scene(128, 128, (14, 14, 100))))
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("mediapipe", tmp_path / "__init__.py")
    for found, said in ((None, "Python 3.10 to 3.12"), (spec, "that carries its models")):
        monkeypatch.setattr(mediapipe_models.importlib.util, "find_spec", lambda name, found=found: found)
        terms = r"loss\.landmarks, loss\.close_up and data\.stills"
        with pytest.raises(InputError, match=rf"{terms} needs .*{said}.*'mtanimate\[mediapipe\]'"):
            FaceLandmarks()
