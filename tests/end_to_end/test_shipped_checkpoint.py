"""The checkpoint that ships: whole, described, and better than doing nothing on people it has never seen."""

import hashlib

import numpy as np
import pytest
import torch
from commands import moving_disc
from golden import SHARED

import mtanimate
from mtanimate.animation.retargeting import choose_reference, transferred
from mtanimate.checkpoints.file import read_metadata
from mtanimate.checkpoints.registry import entries, resolve
from mtanimate.data.people import FaceLandmarks
from mtanimate.faces.detection import resize_frames, square_frames
from mtanimate.faces.mesh import CONTOURS
from mtanimate.inspection.subject import PORTRAIT
from mtanimate.models.face_points import token_indices
from mtanimate.video import VideoReader, read_image

TEST_CLIPS = SHARED / "data" / "talking-heads" / "test"


def test_it_is_what_the_registry_says():
    file = resolve("default")
    assert file.stat().st_size < 40 * 2**20
    (entry,) = [entry for entry in entries().values() if entry.file == file]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == entry.sha256


def test_its_metadata_says_where_it_comes_from():
    metadata = read_metadata(resolve("default"))
    assert int(metadata["about.samples"]) > 10_000
    assert "research" in metadata["about.licence"]
    assert metadata["about.data"]


@pytest.fixture(scope="module")
def animator():
    return mtanimate.load("default", device="cpu")


@torch.inference_mode()
def test_a_picture_driven_by_itself_stays_itself(animator):
    """Also of something that is no face."""
    picture = resize_frames(moving_disc(1, 256), animator.config.resolution).float() / 255
    source = animator.encode_source(picture)
    assert (animator.drive(source, source.motion) - picture).abs().mean() < 0.05


@pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")
@pytest.mark.parametrize(("each", "step"), [(10, 32), pytest.param(5, 16, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_unseen_people_are_reconstructed_better_than_by_repeating_the_first_frame(animator, each, step):
    ours, repeated = [], []
    for path in sorted(TEST_CLIPS.glob("*.mp4"))[::each]:
        reader = VideoReader(path)
        chosen = reader.frames(range(0, reader.frame_count, step))
        frames = resize_frames(chosen, animator.config.resolution).float() / 255
        predictions = animator.drive(animator.encode_source(frames[:1]), animator.estimate_motion(frames[1:]))
        ours.append((predictions - frames[1:]).abs().mean())
        repeated.append((frames[:1] - frames[1:]).abs().mean())
    assert len(ours) == 40 // each
    assert sum(ours) < 0.75 * sum(repeated)  # shoulders and hair are what is left: no token is theirs


@pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")
@pytest.mark.parametrize(("each", "count"), [(14, 12), pytest.param(7, 24, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_heads_and_mouths_of_unseen_people_follow(animator, each, count):
    """Medians of correlations over the clips, each from its first frame."""
    pytest.importorskip("mediapipe", reason="landmarks need mediapipe: pip install 'mtanimate[mediapipe]'")
    find = FaceLandmarks()
    followed = {"yaw": [], "mouth": []}
    for path in sorted(TEST_CLIPS.glob("*.mp4"))[::each]:
        reader = VideoReader(path)
        chosen = reader.frames(range(0, reader.frame_count, max(4, reader.frame_count // count)))
        frames = resize_frames(chosen, animator.config.resolution).float() / 255
        predictions = animator.drive(animator.encode_source(frames[:1]), animator.estimate_motion(frames[1:]))
        for gesture, size in gestures(find(frames[1:]), find(predictions)).items():
            followed[gesture].append(size)
    medians = {gesture: np.median(sizes) for gesture, sizes in followed.items()}
    assert len(followed["mouth"]) == 42 // each
    assert medians["yaw"] > 0.5, medians
    assert medians["mouth"] > 0.8, medians


@pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")
@pytest.mark.parametrize(("each", "count"), [(8, 12), pytest.param(4, 24, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_the_face_of_a_photograph_talks(animator, each, count):
    """The portrait that ships, driven by unseen people: what its face does, read off the points of the results."""
    picture = square_frames(read_image(PORTRAIT)[None], animator.config.resolution).float() / 255
    source = animator.encode_source(picture)
    gains = {name: [] for name in OPENINGS}
    for path in sorted(TEST_CLIPS.glob("*.mp4"))[::each]:
        reader = VideoReader(path)
        chosen = reader.frames(range(0, reader.frame_count, max(4, reader.frame_count // count)))
        driving = animator.estimate_motion(resize_frames(chosen, animator.config.resolution).float() / 255)
        number, _ = choose_reference(source.motion, driving, "best")
        motion = transferred(source.motion, source.motion, driving, driving[number : number + 1], True, 1.0)
        results = animator.estimate_motion(animator.drive(source, motion))
        for name, found in gains.items():
            wanted, seen = (opening(points, *OPENINGS[name]) for points in (driving, results))
            if wanted.std() > 0.012:
                found.append(np.polyfit(wanted, seen, 1)[0])
    medians = {name: np.median(found) for name, found in gains.items()}
    assert min(len(found) for found in gains.values()) >= 3, gains
    assert medians["mouth"] > 0.5, gains
    assert medians["eyes"] > 0.1, gains


OPENINGS = {"mouth": (13, 14), "eyes": (159, 145)}


def opening(motion, upper, lower):
    """Of lips or lids, in distances of the outer eye corners: (T,)."""
    points = motion.keypoints[:, token_indices((upper, lower, 33, 263))]
    return ((points[:, 1] - points[:, 0]).norm(dim=1) / (points[:, 3] - points[:, 2]).norm(dim=1)).numpy()


def gestures(driving, generated):
    """Correlations of the head's turn (eyes beside the face's contour) and of the lips' opening (their height)."""
    values = []
    for landmarks in (driving, generated):
        contours = {name: landmarks[:, list(vertices)].numpy() for name, vertices in CONTOURS.items()}
        right, left, oval = (contours[name].mean(axis=1) for name in ("RIGHT_EYE", "LEFT_EYE", "FACE_OVAL"))
        apart = right - left
        unit = np.linalg.norm(apart, axis=1)
        eyes = (right + left) / 2 - oval
        height = np.ptp(contours["LIPS"][..., 1], axis=1)
        values.append({"yaw": (eyes * apart).sum(axis=1) / unit**2, "mouth": height / unit})
    return {gesture: np.corrcoef(values[0][gesture], values[1][gesture])[0, 1] for gesture in values[0]}
