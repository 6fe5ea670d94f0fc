"""Other places behind the people of training frames, and what is said where MediaPipe is missing."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import PLAIN, counting_frames, tiny_config, write_video

from mtanimate.data.augmentation import Recipe, augment
from mtanimate.data.clips import find_clips
from mtanimate.data.loading import collate, load_batches
from mtanimate.data.pairs import PairDataset, Unreadable
from mtanimate.data.people import Backdrop, PersonMatte
from mtanimate.errors import InputError
from mtanimate.faces import mesh as mediapipe_models
from mtanimate.faces.detection import resize_frames
from mtanimate.inspection.subject import PORTRAIT
from mtanimate.video import read_image

SIZE = 128
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="mattes need mediapipe: pip install 'mtanimate[mediapipe]'"
)


def pictures_of(pair):
    """(2, 3, R, R) in [0, 1]."""
    batch = collate([pair]).augmented()
    return torch.cat([batch.source, batch.driving])


def portrait():
    """(3, 128, 128) uint8."""
    return resize_frames(read_image(PORTRAIT)[None], SIZE)[0]


def pairs_of(folder, background=1.0, **loss):
    augmentation = replace(PLAIN, background=background)
    config = tiny_config(data={"augmentation": augmentation}, loss=loss)
    return PairDataset(find_clips(folder), replace(config, model=replace(config.model, resolution=SIZE)))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A person who stays, before a place that changes from grey to grey with each frame; and a red clip of nobody."""
    folder = tmp_path_factory.mktemp("videos")
    person = portrait()[None]
    shares = torch.nn.functional.interpolate(PersonMatte()(person)[:, None] / 255, (SIZE, SIZE), mode="bilinear")
    greys = torch.linspace(40, 220, 8)[:, None, None, None].expand(8, 3, SIZE, SIZE)
    frames = (shares * person + (1 - shares) * greys).round().byte()
    write_video(folder / "ann.mp4", frames.permute(0, 2, 3, 1).numpy())
    write_video(folder / "nobody.mp4", counting_frames(8, colour=0, size=SIZE))
    return folder


@needs_mediapipe
def test_the_matte_has_the_person_and_not_the_corners():
    matte = PersonMatte()(torch.stack([portrait(), portrait().flip(-1)]))
    assert matte.shape == (2, 64, 64)
    assert matte.dtype == torch.uint8
    assert matte[:, 25:45, 27:37].min() > 242
    assert matte[:, :5, :5].max() < 13
    assert 51 < matte.float().mean() < 204


@given(seed=st.integers(0, 2**31))
def test_the_person_stays_and_what_is_behind_is_one_upper_corner_of_the_other(seed):
    pair = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed % 5)) * 255).byte()
    matte = torch.zeros(2, 64, 64, dtype=torch.uint8)
    matte[0, 16:, 12:28], matte[1, 16:, 24:50] = 255, 255
    other = torch.zeros(3, 64, 64, dtype=torch.uint8)
    other[0, :46], other[1] = 255, torch.linspace(0, 255, 64).byte()  # red above 0.7 of it; green from left to right
    recipe = Recipe(torch.eye(2, 3).expand(2, 2, 3), torch.stack([torch.eye(3), torch.zeros(3, 3)]))
    recipe = replace(recipe, backdrop=Backdrop.draw(matte, other, np.random.default_rng(seed)))
    placed = augment(pair[:, None], Recipe.stack([recipe]))[0][:, 0]
    people = matte[:, None].expand_as(pair) == 255
    assert (placed[people] - pair[people] / 255).abs().max() < 1e-4
    behind = ~(people[0] | people[1])
    assert (placed[0][behind] - placed[1][behind]).abs().max() < 1e-4
    assert placed[:, 0][matte == 0].min() > 0.97  # never from below
    green = placed[0, 1, 0]
    assert 0.2 <= green.max() - green.min() <= 0.72  # a part, enlarged
    assert green.diff().sign().unique().numel() <= 2  # evenly, from left to right or from right to left


@needs_mediapipe
def test_a_clips_own_background_is_replaced_by_another_clips_and_stands_still(videos):
    own, other = (pictures_of(pairs_of(videos, background=share)[3, 0]) for share in (1e-9, 1))
    assert (own[0] - own[1])[:, 4:12, 4:12].abs().min() > 0.05
    assert (other[0] - other[1])[:, 4:12, 4:12].abs().max() < 0.02
    face = (slice(None), slice(None), slice(50, 90), slice(54, 74))
    assert (own[face] - other[face]).abs().mean() < 0.02
    drawn = [pictures_of(pairs_of(videos)[number, 0])[0, :, 4:16, 4:16].mean(dim=(1, 2)) for number in range(6)]
    assert any(red - green > 0.3 for red, green, _ in drawn), "the other clip's colour is behind nobody"


@needs_mediapipe
def test_a_pair_with_another_background_depends_on_its_number_alone(videos):
    pairs = pairs_of(videos)
    first = pictures_of(pairs[3, 0])
    pairs[5, 0], pairs[4, 1]
    assert torch.equal(pictures_of(pairs[3, 0]), first)


@needs_mediapipe
def test_a_clip_of_nobody_stays_as_it_is(videos):
    for number in range(3):
        assert pairs_of(videos)[number, 1].recipe.backdrop is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [({}, "data.augmentation.background"), ({"background": 0, "landmarks": 1.0}, "loss.close_up and data.stills")],
)
def test_a_missing_mediapipe_is_said_before_anything_is_read(tmp_path, monkeypatch, settings, said):
    write_video(tmp_path / "a.mp4", counting_frames(3, 0))
    monkeypatch.setattr(mediapipe_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{said}.* needs .*'mtanimate\[mediapipe\]'"):
        pairs_of(tmp_path, **settings)


@needs_mediapipe
def test_a_mediapipe_that_does_not_start_is_said_with_its_words(videos, monkeypatch):
    """Also where another process draws the pairs: only the words pass from process to process."""

    def broken(self):
        raise InputError("needs a whole mediapipe")

    monkeypatch.setattr(PersonMatte, "__init__", broken)
    pairs = pairs_of(videos)
    assert pairs[0, 0] == Unreadable("needs a whole mediapipe")
    for processes in (0, 1):
        with pytest.raises(InputError, match="needs a whole mediapipe"):
            next(load_batches(pairs, start=0, processes=processes, pinned=False))
