"""`loss.detail`: results at full size while training."""

import numpy as np
import pytest
import torch
from tiny import assert_equal, make_run, tiny_animator, tiny_config, train, weights

from mtanimate.config.consistency import check
from mtanimate.data.caching import cache_dataset
from mtanimate.data.clips import find_clips
from mtanimate.data.loading import Batch, collate
from mtanimate.data.pairs import PairDataset
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.geometry import coordinate_grid
from mtanimate.inference.enlargement import SourcePixels, take_apart
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.losses.motion import Transform
from mtanimate.training.detail import at_full_size
from mtanimate.training.objective import Objective, Phase

SIDE, CELLS, FULL = 64, 32, 160
DETAIL = {"loss": {"detail": 0.5}, "data": {"full_resolution": 96}}


def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(70, 180, (FULL // 2, FULL // 2, 3), np.uint8).repeat(2, 0).repeat(2, 1)


def dense_motion(bend: float, *, exact: bool = True) -> DenseMotion:
    grid = coordinate_grid(CELLS, CELLS, torch.zeros(1))[None]
    flow = grid + bend * torch.sin(3 * grid.flip(-1))
    occlusion = torch.linspace(0, 1, CELLS).expand(1, 1, CELLS, CELLS).clone()
    return DenseMotion(torch.ones(1, 1, CELLS, CELLS), flow, occlusion, exact)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("bend", [0.0, 0.06])
def test_it_is_what_animate_renders(bend, exact):
    picture, square = photograph(), Square(0, 0, FULL)
    seen = resize_frames(picture[None], SIDE).float() / 255
    motion = dense_motion(bend, exact=exact)
    prediction = 0.8 * motion.warp(seen)
    full = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    found = at_full_size(full, seen, prediction, motion)[0].permute(1, 2, 0) * 255
    wanted = SourcePixels(picture, square, FULL).render(take_apart(seen, prediction, motion))[0]
    inside = slice(6, -6)  # the flow's edge is prolonged in another way
    difference = np.abs(found.clamp(0, 255).numpy() - wanted)[inside, inside]
    assert difference.mean() < 0.7
    assert difference.max() < 12


@pytest.mark.parametrize("bend", [0.0, 0.06])
def test_gradients_reach_flow_occlusion_and_prediction(bend):
    """And are finite where nothing bends, too."""
    motion = dense_motion(bend)
    seen = resize_frames(photograph()[None], SIDE).float() / 255
    full = torch.from_numpy(photograph()).permute(2, 0, 1)[None].float() / 255
    prediction = torch.full_like(seen, 0.5)
    leaves = [tensor.requires_grad_() for tensor in (motion.flow, motion.occlusion, prediction)]
    (at_full_size(full, seen, prediction, motion) - full.roll(3, dims=3)).abs().mean().backward()
    for tensor in leaves:
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0


def batch(full: bool) -> Batch:
    torch.manual_seed(0)
    pictures = torch.rand(2, 2, 3, SIDE, SIDE)
    whole = torch.rand(2, 2, 3, 96, 96) if full else None
    transform = Transform.random(np.random.default_rng(0), tiny_config().loss.transform).repeat(2)
    return Batch(pictures[0], pictures[1], transform, None, None, [], [], full=whole)


@pytest.mark.parametrize("both", [True, False])
def test_it_changes_no_other_term(both):
    animator = tiny_animator().eval()
    found = []
    for full in (False, True):
        config = tiny_config(loss={"detail": 0.5 if full else 0.0, "both_directions": both}).loss
        found.append(Objective(config)(animator, batch(full)).terms)
    usual, with_detail = found
    assert with_detail.pop("detail") > 0
    assert with_detail == usual
    warm_up = Objective(config)(animator, batch(True), Phase.WARMUP).terms
    assert "detail" not in warm_up


def test_the_term_is_of_each_direction():
    """The full-size frames are those of the pictures, each beside the one it becomes."""
    animator = tiny_animator().eval()
    drawn = batch(True)
    for both in (False, True):
        objective = Objective(tiny_config(loss={"detail": 1.0, "both_directions": both}).loss)
        outcome = objective(animator, drawn)
        scene = outcome.scene
        source = torch.cat([drawn.full[0], drawn.full[1]])[: len(scene.source)]
        driving = torch.cat([drawn.full[1], drawn.full[0]])[: len(scene.source)]
        rendered = at_full_size(source, scene.source, scene.prediction, scene.dense)
        wanted = objective.config.pixel * (rendered - driving).abs().mean()
        assert outcome.terms["detail"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_pairs_are_read_at_full_size_and_seen_reduced(videos):
    dataset = PairDataset(find_clips(videos), tiny_config(**DETAIL))
    pairs = [dataset[(number, number % 2)] for number in range(3)]
    raw = collate(pairs)
    drawn = raw.augmented(SIDE)
    assert drawn.full.shape == (2, 3, 3, 96, 96)
    assert drawn.source.shape == drawn.driving.shape == (3, 3, SIDE, SIDE)
    small = resize_frames((drawn.full[0] * 255).round().byte().permute(0, 2, 3, 1).numpy(), SIDE).float() / 255
    assert (drawn.source - small).abs().max() < 2 / 255
    plain = collate([PairDataset(find_clips(videos), tiny_config())[(0, 0)]])
    assert plain.augmented(SIDE).full is None


def test_landmarks_stay_on_their_pixels(videos):
    raw = collate([PairDataset(find_clips(videos), tiny_config(**DETAIL))[(0, 0)]])
    pixels = torch.tensor([[0.0, 12.0], [47.5, 95.0]])  # of 96
    landmarks = (2 * pixels / 95 - 1).expand(2, 1, 2, 2)
    raw = type(raw)(raw.frames, raw.recipe, raw.transform, landmarks, raw.clips, raw.skipped, None)
    found = (raw.augmented(SIDE).landmarks + 1) / 2 * (SIDE - 1)
    torch.testing.assert_close(found[0, 0], (pixels + 0.5) * SIDE / 96 - 0.5, rtol=0, atol=1e-4)


def test_caches_of_the_networks_resolution_are_refused(videos, tmp_path):
    cache_dataset(videos, tmp_path / "cache", resolution=SIDE)
    config = tiny_config(loss=DETAIL["loss"], data={"cache": str(tmp_path / "cache"), **DETAIL["data"]})
    with pytest.raises(InputError, match=r"is of 64 x 64 pixels: make another with .* --resolution 96"):
        PairDataset(find_clips(videos), config)


def test_stopped_and_resumed_equals_not_stopped(tmp_path, videos):
    """The run's own cache holds frames of full size."""
    options = {"steps": 3, "validation_clips": 1, "loss": DETAIL["loss"], "data": {"cache_gib": 0.1, **DETAIL["data"]}}
    runs = [make_run(tmp_path / name, videos, **options) for name in ("whole", "parts")]
    for run in runs:
        run.cache()
    _, reports = train(runs[0])
    assert reports[-1].losses["detail"] > 0
    stopped = []

    def stop(progress) -> None:
        if progress.step == 2:
            stopped.append(progress.step)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs[1].train(stop)
    resumed = make_run(tmp_path / "parts", videos, **options)
    resumed.cache()
    assert resumed.resume()
    assert resumed.state.step == 2
    train(resumed)
    assert_equal(weights(runs[0]), weights(resumed))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": {"detail": 1.0}}, "loss.detail and data.full_resolution"),
        ({"data": {"full_resolution": 96}}, "loss.detail and data.full_resolution"),
        ({"loss": {"detail": 1.0}, "data": {"full_resolution": 64}}, "data.full_resolution: 64"),
        ({"loss": {"detail": 1.0, "window": 32}, "data": {"full_resolution": 96}}, "loss.window"),
        ({"loss": {"detail": 1.0, "pixel": 0}, "data": {"full_resolution": 96}}, "loss.pixel"),
    ],
)
def test_settings_that_do_not_fit_together(settings, said):
    check(tiny_config(**DETAIL))
    with pytest.raises(InputError) as caught:
        check(tiny_config(**settings))
    assert said in str(caught.value)
