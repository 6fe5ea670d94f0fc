"""The paper's baselines train with the same generator and the same command."""

from dataclasses import replace

import pytest
import torch
from tiny import MODEL, make_run, train

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.checkpoints.registry import named_file
from mtanimate.config import (
    BackgroundConfig,
    Config,
    DropoutConfig,
    HeatmapEstimatorConfig,
    MotionTransformerConfig,
    SplineEstimatorConfig,
    TransformConfig,
    load_preset,
)
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.training.step import dropout
from mtanimate.training.train import plan

PART_OF_MRAA = pytest.param("monkey-net", marks=pytest.mark.slow)
NAMES = ["fomm", "mraa", PART_OF_MRAA]


def model(name, **changes):
    estimator = HeatmapEstimatorConfig(name=name, block_expansion=8, max_features=16, num_blocks=2)
    return replace(MODEL, estimator=estimator, **changes)


def thirds(reports, term):
    values = torch.tensor([report.losses[term] for report in reports])
    return values[: len(values) // 3].mean(), values[-(len(values) // 3) :].mean()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name, tmp_path, videos):
    loss = {"equivariance_affine": 1.0} if name == "fomm" else {}
    run = make_run(tmp_path, videos, model=model(name), steps=24, checkpoint_every=24, loss=loss)
    first, last = thirds(train(run)[1], "pixel")
    assert last < 0.9 * first


@pytest.mark.parametrize("name", NAMES)
def test_equivariance_alone_falls(name, tmp_path, videos):
    loss = {"equivariance_keypoints": 10.0, "transform": TransformConfig(sigma_affine=0.15)}
    steps = {"steps": 30, "equivariance_steps": 30, "checkpoint_every": 30}
    run = make_run(tmp_path, videos, model=model(name), **steps, loss=loss)
    first, last = thirds(train(run)[1], "equivariance_keypoints")
    assert last < 0.9 * first


@pytest.mark.parametrize("name", NAMES)
def test_with_a_background_predictor(name, tmp_path, videos):
    network = model(name, background=BackgroundConfig(4, 8, 2))
    _, reports = train(make_run(tmp_path, videos, model=network, steps=2, loss={"mask": 1.0}))
    assert all(torch.isfinite(torch.tensor(list(report.losses.values()))).all() for report in reports)


SPLINES = SplineEstimatorConfig(width=8)


def test_splines_learn(tmp_path, videos):
    """Some are left out of the flow in the first steps."""
    masks = replace(MODEL.dense_motion, exact_sampling=True)
    network = replace(MODEL, estimator=SPLINES, num_keypoints=10, dense_motion=masks)
    steps = {"steps": 24, "checkpoint_every": 24, "dropout": DropoutConfig(first=0.1, most=0.5)}
    run = make_run(tmp_path, videos, model=network, **steps)
    first, last = thirds(train(run)[1], "pixel")
    assert last < 0.9 * first
    assert run.trainer.animator.dense_motion.dropout == 0


def test_dropout_rises_and_ends():
    config = DropoutConfig(first=0.1, most=0.3, rise=0.1, until=0.35)
    assert [round(dropout(config, step, 100), 3) for step in (0, 5, 10, 34, 35, 99)] == [0.1, 0.25, 0.3, 0.3, 0, 0]
    assert dropout(DropoutConfig(), 0, 100) == 0


# Which network a command trains


@pytest.fixture
def clips(videos):
    return str(videos)


@pytest.mark.parametrize(("name", "affine"), [("fomm", 10.0), ("mraa", 0.0), ("monkey-net", 0.0)])
def test_an_estimator_takes_its_own_loss_along(name, affine, clips):
    config = plan(clips, estimator=name).config
    assert config.model.estimator == HeatmapEstimatorConfig(name=name)
    assert config.loss.equivariance_affine == affine
    assert config.model.generator == plan(clips).config.model.generator


def test_the_presets_own_estimator_stays_as_it_is(clips):
    assert plan(clips, estimator="motion-transformer").config == plan(clips).config
    back = plan(clips, preset="fomm", estimator="motion-transformer").config
    assert back.model.estimator == MotionTransformerConfig()


def test_splines_bring_their_points_and_their_dropout_along(clips):
    config = plan(clips, estimator="tpsmm").config
    assert config.model.estimator == SplineEstimatorConfig()
    assert config.model.num_keypoints == 50
    assert config.training.dropout.most == 0.3
    assert config.model.generator == plan(clips).config.model.generator
    changed = plan(clips, preset="tpsmm", estimator="tpsmm", settings=["model.num_keypoints=25"]).config.model
    assert changed.num_keypoints == 25


def test_an_unknown_estimator(clips):
    with pytest.raises(InputError, match="--estimator x2face: there are motion-transformer, fomm, mraa, monkey-net"):
        plan(clips, estimator="x2face")


def test_another_checkpoint_is_trained_on_as_it_is(clips, tmp_path, monkeypatch):
    """`train --init NAME` alone: its network, the small preset's settings for everything else."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))
    network = model("mraa")
    named_file("mine").parent.mkdir(parents=True)
    write_checkpoint(named_file("mine"), Animator(network), Config(model=network), {})
    planned = plan(clips, init="mine")
    assert planned.config.model == network
    assert planned.config.loss.equivariance_affine == 0
    assert planned.config.training == replace(load_preset("small").training, equivariance_steps=0, warmup_steps=0)
    shipped = plan(clips, init="default").config  # its tokens are tied: the losses that tie them come along
    assert shipped.loss == load_preset("face").loss
    assert shipped.training == replace(load_preset("face").training, equivariance_steps=0, warmup_steps=0)
    assert plan(clips, init="mine", preset="vox").config.model.resolution == 256


@pytest.mark.parametrize("setting", ["training.freeze=[backbone]", "training.backbone_file=w.pth"])
def test_what_only_a_transformer_has(setting, clips):
    with pytest.raises(InputError, match="fomm has no backbone"):
        plan(clips, estimator="fomm", settings=[setting])


def test_a_loss_that_would_train_nothing(clips):
    with pytest.raises(InputError, match="mraa regresses no matrices"):
        plan(clips, estimator="mraa", settings=["loss.equivariance_affine=2"])
