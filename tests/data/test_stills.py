"""Pairs of frames out of single pictures: the warp moves a head as it says, and the rest stays."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import PLAIN, counting_frames, tiny_config, write_video

from mtanimate.data.clips import find_clips, find_stills
from mtanimate.data.loading import collate
from mtanimate.data.pairs import PairDataset
from mtanimate.data.people import FaceLandmarks
from mtanimate.data.warps import bent, draw_flow, turned
from mtanimate.errors import InputError
from mtanimate.faces import mesh as mediapipe_models
from mtanimate.faces.detection import square_frames
from mtanimate.geometry import sample, warp
from mtanimate.inspection.subject import PORTRAIT
from mtanimate.video import read_image, write_image

needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="stills need mediapipe: pip install 'mtanimate[mediapipe]'"
)


def pairs_of(videos, stills, seed=0, **data):
    return PairDataset(
        find_clips(videos), tiny_config(data={"augmentation": PLAIN, "stills": str(stills)} | data, seed=seed)
    )


def draw(dataset, count):
    return [dataset[number, number % len(dataset.entries)] for number in range(count)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "ann__1.mp4", counting_frames(8, colour=0))
    return folder


@pytest.fixture(scope="module")
def stills(tmp_path_factory):
    """A face, and a picture of nobody."""
    folder = tmp_path_factory.mktemp("stills")
    write_image(folder / "face.png", read_image(PORTRAIT))
    write_image(folder / "nobody.png", counting_frames(8, colour=2, size=64)[5])
    return folder


@pytest.fixture(scope="module")
def find():
    return FaceLandmarks()


@pytest.fixture(scope="module")
def portrait():
    """(1, 3, 256, 256) in [0, 255]."""
    return square_frames(read_image(PORTRAIT)[None], 256).float()


def mesh_of(find, picture):
    return find.mesh(np.ascontiguousarray(picture[0].permute(1, 2, 0).byte().numpy()))


def areas(flow):
    """What each of the grid's cells covers in the picture that is read, as a multiple of itself: (32, 32)."""
    step = 2 / (len(flow) - 1)
    across, down = (flow[:-1, 1:] - flow[:-1, :-1]) / step, (flow[1:, :-1] - flow[:-1, :-1]) / step
    return across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]


@needs_mediapipe
def test_the_warped_face_is_where_the_flow_says(find, portrait):
    """The face found anew in the warped picture, read back through the flow, is the picture's own; and heads nod and
    turn: the nose's tip moves against the temples, both ways."""
    random = np.random.default_rng(3)
    mesh = mesh_of(find, portrait)
    assert mesh.shape == (478, 3)
    tip, temples = mesh[4], mesh[[127, 356]].mean(axis=0)
    assert tip[2] < temples[2] - 0.1  # nearer to the camera
    moves = []
    for _ in range(12):
        flow = turned(mesh, random)
        found = mesh_of(find, warp(portrait, flow[None], exact=True))
        places = torch.from_numpy(found[None, None, :, :2]).float()
        read = sample(flow[None].permute(0, 3, 1, 2), places, exact=True)[0, :, 0].T.numpy()
        assert np.abs(read - mesh[:, :2]).mean() < 0.03  # of a face 0.8 wide
        moves.append((found[4] - found[[127, 356]].mean(axis=0) - tip + temples)[:2])
    assert (np.min(moves, axis=0) < -0.02).all()
    assert (np.max(moves, axis=0) > 0.02).all()


@needs_mediapipe
@given(seed=st.integers(0, 2**31))
def test_nothing_folds_and_the_corners_stay(find, portrait, seed):
    flow = turned(mesh_of(find, portrait), np.random.default_rng(seed))
    assert flow.shape == (33, 33, 2)
    assert areas(flow).min() > 0.2
    assert areas(flow).max() < 3
    for y in (0, -1):
        for x in (0, -1):
            assert (flow[y, x] - torch.tensor([-1.0 if x == 0 else 1.0, -1.0 if y == 0 else 1.0])).abs().max() < 0.05


@given(seed=st.integers(0, 2**31))
def test_a_picture_of_nobody_bends_without_folding_and_its_border_stays(seed):
    flow = bent(np.random.default_rng(seed))
    assert areas(flow).min() > 0.2
    assert areas(flow).max() < 3
    still = torch.linspace(-1, 1, 33)
    assert (flow[:, 0, 0] + 1).abs().max() < 0.05
    assert (flow[0, :, 0] - still).abs().max() < 0.05


@needs_mediapipe
def test_pairs_of_stills_are_drawn_by_their_number(videos, stills):
    dataset = pairs_of(videos, stills, stills_share=1.0)
    pairs = draw(dataset, 12)
    assert {pair.clip for pair in pairs} == {"face.png", "nobody.png"}
    for pair, again in zip(pairs, draw(pairs_of(videos, stills, stills_share=1.0), 12), strict=True):
        assert torch.equal(pair.frames, again.frames)
        assert torch.equal(pair.recipe.flow, again.recipe.flow)
        assert pair.landmarks is None
    batch = collate([pair for pair in pairs if pair.clip == "face.png"]).augmented()
    faces = list(torch.stack([batch.source, batch.driving], dim=1))
    size = dataset.config.model.resolution
    assert all(frames.shape == (2, 3, size, size) for frames in faces)
    assert all((frames[0] - frames[1]).abs().mean() > 0.005 for frames in faces)  # a warp of its own for each
    assert not torch.equal(faces[0], faces[1])


@needs_mediapipe
def test_a_face_is_turned_and_a_picture_of_nobody_bends(find, portrait, monkeypatch):
    made, random = [], np.random.default_rng(1)
    for way in (turned, bent):
        monkeypatch.setattr(f"mtanimate.data.warps.{way.__name__}", lambda *a, way=way: made.append(way) or way(*a))
    mesh = mesh_of(find, portrait)
    assert draw_flow(mesh, random).shape == (2, 33, 33, 2)
    draw_flow(np.full_like(mesh, np.nan), random)
    assert made == [turned, turned, bent, bent]


@needs_mediapipe
def test_the_landmarks_of_a_still_move_with_its_head(videos, stills, find):
    """Found anew in the pictures that a step gets, they are where they have been carried to."""
    config = tiny_config(
        data={
            "augmentation": replace(PLAIN, horizontal_flip=0.5, rotation=8),
            "stills": str(stills),
            "stills_share": 1.0,
        },
        loss={"landmarks": 1.0},
    )
    config = replace(config, model=replace(config.model, resolution=256))
    pairs = [pair for pair in draw(PairDataset(find_clips(videos), config), 12) if pair.clip == "face.png"]
    batch = collate(pairs).augmented()
    for pictures, carried in zip((batch.source, batch.driving), batch.landmarks, strict=True):
        apart = (find(pictures) - carried).norm(dim=-1)
        assert apart.mean() < 0.03  # of a face 0.8 wide
    mirrored = [bool(pair.recipe.windows[0, 0, 0] < 0) for pair in pairs]
    assert 0 < sum(mirrored) < len(mirrored)


@needs_mediapipe
def test_the_share_is_kept_and_a_broken_still_is_named(videos, stills, tmp_path):
    names = [pair.clip for pair in draw(pairs_of(videos, stills, stills_share=0.3), 200)]
    assert 0.2 < np.mean([name.endswith(".png") for name in names]) < 0.4
    (tmp_path / "broken.png").write_bytes((stills / "face.png").read_bytes()[:500])
    pairs = draw(pairs_of(videos, tmp_path, stills_share=0.3), 20)
    assert {pair.clip for pair in pairs} == {"ann__1.mp4"}
    assert any("broken.png" in line for pair in pairs for line in pair.skipped)


def test_what_is_missing_is_said_before_anything_is_read(videos, stills, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no folder of stills '.*nowhere'"):
        pairs_of(videos, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no pictures in the folder of stills"):
        find_stills(tmp_path)
    monkeypatch.setattr(mediapipe_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"data\.stills needs .*'mtanimate\[mediapipe\]'"):
        pairs_of(videos, stills)


@needs_mediapipe
def test_a_run_knows_its_stills_by_name(videos, stills):
    assert pairs_of(videos, stills).names == ["ann__1.mp4", "face.png", "nobody.png"]
