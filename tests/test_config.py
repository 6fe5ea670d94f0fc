"""Configurations: presets, overrides, and what is said about mistakes."""

import dataclasses
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.config import (
    BACKBONES,
    BackgroundConfig,
    Config,
    HRNetConfig,
    TrainingConfig,
    from_mapping,
    load_preset,
    override,
    preset_names,
    to_mapping,
)
from mtanimate.errors import InputError


def scalar_settings(kind=Config, prefix=""):
    """(dotted key, type) of every number, text, switch and choice of the configuration."""
    for name, of in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(of):
            yield from scalar_settings(of, f"{prefix}{name}.")
        elif of in (int, float, str, bool) or typing.get_origin(of) is typing.Literal:
            yield f"{prefix}{name}", of


SCALARS = dict(scalar_settings())
TEXT = st.text("abcxyz/._", min_size=1).map(lambda text: f"v{text}")


def values(kind):
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from([choice for choice in typing.get_args(kind) if choice])
    if kind is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    return {int: st.integers(-(10**9), 10**9), bool: st.booleans(), str: TEXT}[kind]


def at(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def refused(*changes):
    with pytest.raises(InputError) as caught:
        override(Config(), list(changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Round trips


@pytest.mark.parametrize("name", [*preset_names(), "defaults"])
def test_every_preset_survives_yaml(name):
    config = Config() if name == "defaults" else load_preset(name)
    text = yaml.safe_dump(to_mapping(config))
    assert from_mapping(Config, yaml.safe_load(text)) == config


def test_background_survives_yaml():
    config = override(Config(), ["model.background={block_expansion: 8}"])
    assert config.model.background == BackgroundConfig(block_expansion=8)
    assert from_mapping(Config, yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config


def test_the_presets_that_ship():
    assert {"small", "vox"} <= set(preset_names())
    assert load_preset("vox").model == Config().model  # the paper's network is the default


def test_unknown_preset_suggests_the_nearest():
    with pytest.raises(InputError, match=r"no preset 'smal'; did you mean 'small'\?"):
        load_preset("smal")


@settings(max_examples=60)
@given(data=st.data())
def test_overrides_of_known_settings_hold_and_survive_yaml(data):
    assert len(SCALARS) > 30
    keys = data.draw(st.lists(st.sampled_from(sorted(SCALARS)), unique=True, max_size=8))
    chosen = {key: data.draw(values(SCALARS[key]), label=key) for key in keys}
    written = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in chosen.items()]
    config = override(Config(), written)
    for key, value in chosen.items():
        assert at(config, key) == value
        assert type(at(config, key)) is type(value)
    assert from_mapping(Config, yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config
    untouched = SCALARS.keys() - chosen.keys()
    assert all(at(config, key) == at(Config(), key) for key in untouched)


# Mappings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modle": {}}, "unknown setting 'modle'; did you mean 'model'?"),
        ({"training": {"stepps": 3}}, "unknown setting 'training.stepps'; did you mean 'steps'?"),
        ({"model": {"estimator": {"zzz": 3}}}, "unknown setting 'model.estimator.zzz'; known here: variant"),
        ({"training": {"steps": "many"}}, "training.steps: expected a whole number, not 'many'"),
        ({"training": {"steps": 1.5}}, "training.steps: expected a whole number, not 1.5"),
        ({"training": {"steps": True}}, "training.steps: expected a whole number, not True"),
        ({"training": {"ema": False}}, "training.ema: expected a number, not False"),
        ({"training": {"schedule": "linear"}}, "training.schedule: 'linear' is not one of milestones, cosine"),
        ({"training": {"betas": [0.5]}}, "training.betas: expected 2 values, not 1"),
        ({"training": {"betas": 0.5}}, "training.betas: expected a list, not 0.5"),
        ({"training": {"milestones": ["a"]}}, "training.milestones: expected a number, not 'a'"),
        ({"training": 3}, "training: expected a mapping, not 3"),
        ([], "the configuration: expected a mapping, not []"),
        ({"loss": {"both_directions": 1}}, "loss.both_directions: expected true or false, not 1"),
        (
            {"model": {"estimator": {"backbone": "resnet"}}},
            "model.estimator.backbone: no backbone 'resnet'; there are hrnet_w32",
        ),
    ],
)
def test_mistakes_are_named(values, said):
    with pytest.raises(InputError) as caught:
        from_mapping(Config, values)
    assert str(caught.value).startswith(said)


def test_whole_numbers_count_as_floats_and_lists_become_tuples():
    config = from_mapping(TrainingConfig, {"learning_rate": 1, "milestones": [0, 0.5, 1]})
    assert config.learning_rate == 1.0
    assert type(config.learning_rate) is float
    assert config.milestones == (0.0, 0.5, 1.0)


def test_backbones_by_name_and_by_their_numbers():
    named = from_mapping(Config, {"model": {"estimator": {"backbone": "hrnet_w48"}}})
    assert named.model.estimator.backbone == BACKBONES["hrnet_w48"]
    spelt = from_mapping(Config, {"model": {"estimator": {"backbone": {"widths": [8, 16, 32]}}}})
    assert spelt.model.estimator.backbone == HRNetConfig(widths=(8, 16, 32))


# Overrides


def test_override_changes_what_it_names_and_nothing_else():
    config = override(
        Config(),
        [
            "training.steps=100",
            "training.learning_rate=3e-4",
            "loss.scales=[1, 0.5]",
            "model.estimator.backbone=stem",
            "loss.vgg19_file=/data/vgg 19.pth",
            " model.generator.skips=false",
        ],
    )
    assert config.training == dataclasses.replace(Config().training, steps=100, learning_rate=3e-4)
    assert config.loss.scales == (1.0, 0.5)
    assert config.loss.vgg19_file == "/data/vgg 19.pth"
    assert config.model.estimator.backbone == BACKBONES["stem"]
    assert config.model.generator.skips is False


def test_the_last_override_wins_and_the_original_stays():
    original = Config()
    config = override(original, ["training.seed=1", "training.seed=2"])
    assert config.training.seed == 2
    assert original == Config()


def test_a_value_may_hold_an_equals_sign():
    assert override(Config(), ["loss.vgg19_file=a=b.pth"]).loss.vgg19_file == "a=b.pth"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.steps", "--set training.steps: expected key=value"),
        ("trainig.steps=3", "unknown setting 'trainig'; did you mean 'training'?"),
        ("training.step=3", "unknown setting 'training.step'; did you mean 'steps'?"),
        ("training.steps.more=3", "unknown setting 'training.steps'"),
        ("=3", "unknown setting ''"),
        ("training=3", "training: expected a mapping, not 3"),
        ("training.steps=3e-4", "training.steps: expected a whole number, not 0.0003"),
        ("training.steps=", "training.steps: expected a whole number, not None"),
    ],
)
def test_wrong_overrides(setting, said):
    assert said in refused(setting)


def test_none_is_a_position():
    assert override(Config(), ["model.estimator.position=none"]).model.estimator.position == "none"


def test_a_value_that_is_no_yaml():
    assert "cannot read the value '[0.5'" in refused("training.milestones=[0.5")


def test_a_setting_below_one_that_is_off():
    assert "did you mean 'background'" not in refused("model.background.num_blocks=3")
