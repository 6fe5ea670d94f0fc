"""The face mesh's numbers: contours as MediaPipe connects them, a mirror table that real faces agree with."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mtanimate.data.people import FaceLandmarks
from mtanimate.faces.mesh import CONTOURS, MIRROR, SKIN, VERTICES
from mtanimate.video import VideoReader

TRAIN = Path(__file__).parents[2].parent / "shared" / "data" / "talking-heads" / "train"
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="meshes need mediapipe: pip install 'mtanimate[mediapipe]'"
)


def test_mirroring_twice_changes_nothing():
    assert sorted(MIRROR) == list(range(VERTICES))
    assert np.array_equal(MIRROR[MIRROR], np.arange(VERTICES))
    assert (MIRROR[:SKIN] < SKIN).all()


def test_contours_on_the_right_are_mirrored_to_the_left_and_the_rest_to_themselves():
    mirrored = {name: sorted(MIRROR[list(vertices)].tolist()) for name, vertices in CONTOURS.items()}
    for name, vertices in CONTOURS.items():
        partner = name.replace("RIGHT", "LEFT") if "RIGHT" in name else name.replace("LEFT", "RIGHT")
        assert tuple(mirrored[partner]) == vertices


@needs_mediapipe
def test_contours_are_mediapipes_own():
    from mediapipe.python.solutions import face_mesh_connections

    for name, vertices in CONTOURS.items():
        lines = getattr(face_mesh_connections, f"FACEMESH_{name}")
        assert vertices == tuple(sorted({end for line in lines for end in line}))


@needs_mediapipe
@pytest.mark.skipif(not TRAIN.is_dir(), reason=f"no training clips at {TRAIN}")
def test_the_mirror_image_of_a_real_face_has_mirrored_vertices():
    """Found anew in the mirrored picture, vertex j is where vertex MIRROR[j] was: nearer than to any neighbour."""
    find, apart, offside = FaceLandmarks(), [], []
    for path in sorted(TRAIN.glob("*.mp4"))[::45]:
        frame = VideoReader(path).frames([3])
        there, mirrored = find.meshes(frame)[0], find.meshes(frame[:, :, ::-1])[0]
        if np.isnan(there).any() or np.isnan(mirrored).any():
            continue
        width = np.ptp(there[:, 0])
        expected = there[MIRROR] * [-1, 1, 1]
        apart.append(np.linalg.norm(expected - mirrored, axis=1)[:, None] / width)
        offside.append(np.linalg.norm(there * [-1, 1, 1] - mirrored, axis=1)[:, None] / width)
    apart, offside = np.median(np.concatenate(apart, axis=1), axis=1), np.concatenate(offside, axis=1)
    assert apart.max() < 0.04  # of the face's width, each vertex
    assert np.median(offside) > 0.2
