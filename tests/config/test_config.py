"""Configurations: presets, overrides, and what is said about mistakes."""

import dataclasses
import json
import types
import typing
from unittest import mock

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtanimate.config import (
    BACKBONES,
    BackgroundConfig,
    Config,
    HeatmapEstimatorConfig,
    HRNetConfig,
    MotionTransformerConfig,
    TrainingConfig,
    describe,
    differences,
    flat,
    from_checkpoint,
    from_mapping,
    load_file,
    load_preset,
    override,
    preset_names,
    to_mapping,
)
from mtanimate.errors import InputError


def scalar_settings(kind=Config, prefix=""):
    """(dotted key, type) of every number, text, switch and choice of the configuration."""
    for name, of in typing.get_type_hints(kind, include_extras=True).items():
        if typing.get_origin(of) is types.UnionType and type(None) not in typing.get_args(of):
            of = typing.get_args(of)[0]  # the default
        plain = typing.get_args(of)[0] if typing.get_origin(of) is typing.Annotated else of
        if dataclasses.is_dataclass(of):
            yield from scalar_settings(of, f"{prefix}{name}.")
        elif plain in (int, float, str, bool) or typing.get_origin(of) is typing.Literal:
            yield f"{prefix}{name}", of


SCALARS = dict(scalar_settings())
LIMITED = {key: of for key, of in SCALARS.items() if typing.get_origin(of) is typing.Annotated}
TEXT = st.text("abcxyz/._", min_size=1).map(lambda text: f"v{text}")


def values(kind):
    if typing.get_origin(kind) is typing.Annotated:
        number, limits = typing.get_args(kind)
        low, high = limits.low, min(limits.high, 10**9)
        if number is int:
            return st.integers(int(low), int(high))
        return st.floats(low, high, exclude_min="low" in limits.open, exclude_max="high" in limits.open)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from([choice for choice in typing.get_args(kind) if choice])
    return {bool: st.booleans(), str: TEXT}[kind]


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
    with mock.patch("mtanimate.config.mapping.check", lambda config: config):  # sizes need not fit each other here
        config = override(Config(), written)
    for key, value in chosen.items():
        assert at(config, key) == value
        assert type(at(config, key)) is type(value)
    assert from_mapping(Config, yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config
    untouched = SCALARS.keys() - chosen.keys()
    assert all(at(config, key) == at(Config(), key) for key in untouched)


@settings(max_examples=60)
@given(data=st.data())
def test_numbers_out_of_range_are_refused_by_name(data):
    key = data.draw(st.sampled_from(sorted(LIMITED)))
    number, limits = typing.get_args(LIMITED[key])
    assert len(LIMITED) > 40
    wrong = limits.low if "low" in limits.open and data.draw(st.booleans()) else limits.low - 1
    if limits.high < 1e9 and data.draw(st.booleans()):
        wrong = limits.high if "high" in limits.open else limits.high + 1
    assert refused(f"{key}={number(wrong)}").startswith(f"{key}: {number(wrong)} is out of range: it must be ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.batch_size=0", "training.batch_size: 0 is out of range: it must be at least 1 and at most 1e+18"),
        (
            f"training.seed={10**30}",
            f"training.seed: {10**30} is out of range: it must be at least 0 and at most 1e+18",
        ),
        ("training.learning_rate=0", "training.learning_rate: 0.0 is out of range: it must be above 0"),
        ("training.ema=1", "training.ema: 1.0 is out of range: it must be at least 0 and below 1"),
        (
            "training.milestones=[0.5, 2]",
            "training.milestones: 2.0 is out of range: it must be at least 0 and at most 1",
        ),
        ("loss.pixel=.inf", "loss.pixel: inf is out of range: it must be at least 0"),
        ("loss.pixel=.nan", "loss.pixel: nan is out of range: it must be at least 0"),
    ],
)
def test_ranges_by_hand(change, said):
    assert refused(change) == said


# What does not fit together


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.resolution=250", "model.resolution: 250 does not suit model.estimator, which works on 250 pixels"),
        ("model.estimator.heads=7", "model.estimator.dim: 192 cannot be shared by 7 heads"),
        ("model.estimator={dim: 198, heads: 9}", "model.estimator.dim: 198 is not divisible by 4"),
        ("model.estimator.patch_size=3", "and needs a multiple of 48"),
        ("model.estimator.backbone.stage3_blocks=[1]", "stage3_blocks: 1 numbers, not one for each of 3 branches"),
        ("model.dense_motion.num_blocks=9", "does not suit model.dense_motion, which works on 64 pixels"),
        ("model.background={num_blocks: 9}", "does not suit model.background"),
        ("data.augmentation.window=[1, 0.5]", "data.augmentation.window: [1, 0.5] begins above its end"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(change, said):
    assert said in refused(change)


@pytest.mark.parametrize(
    ("preset", "resolutions"), [("small", [64, 128, 192, 256, 320, 384, 512]), ("taichi", [128, 256, 384, 512])]
)
def test_usual_resolutions_fit(preset, resolutions):
    for resolution in resolutions:
        assert override(load_preset(preset), [f"model.resolution={resolution}"]).model.resolution == resolution


# Mappings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modle": {}}, "unknown setting 'modle'; did you mean 'model'?"),
        ({"training": {"stepps": 3}}, "unknown setting 'training.stepps'; did you mean 'steps'?"),
        ({"model": {"estimator": {"zzz": 3}}}, "unknown setting 'model.estimator.zzz'; known here: name, variant"),
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


@given(text=st.text(st.characters(codec="utf-8"), min_size=1))
@example("/a #1/w.pth")
@example("C: d/no")
@example("null")
def test_a_value_that_is_none_of_yaml_stays_as_it_is(text):
    """What the command's own options give: a path may have anything in it."""
    assert override(Config(), [("training.backbone_file", text)]).training.backbone_file == text


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


# Presets of the paper's data sets, and files that build on them


def test_presets_of_the_data_sets_differ_where_the_release_differs():
    """The table of the release's four configurations."""
    vox, taichi, ted, mgif = (load_preset(name) for name in ("vox", "taichi", "ted", "mgif"))
    assert [config.model.resolution for config in (vox, taichi, ted, mgif)] == [256, 256, 384, 256]
    assert [config.training.batch_size for config in (vox, taichi, ted, mgif)] == [64, 64, 56, 64]
    assert [config.data.repeats for config in (vox, taichi, ted, mgif)] == [150, 250, 150, 50]
    assert [config.data.by_identity for config in (vox, taichi, ted, mgif)] == [True, True, True, False]
    augmentations = [config.data.augmentation for config in (vox, taichi, ted, mgif)]
    assert [augmentation.horizontal_flip for augmentation in augmentations] == [0.5, 0, 0.5, 0.5]
    assert [augmentation.rotation for augmentation in augmentations] == [0, 20, 20, 0]
    assert [augmentation.hue for augmentation in augmentations] == [0.1, 0.1, 0.1, 0.5]
    assert [augmentation.saturation for augmentation in augmentations] == [0.1, 0.1, 0.1, 0]
    assert taichi.model.background == BackgroundConfig(32, 1024, 5)
    assert (vox.model.background, ted.model.background, mgif.model.background) == (None, None, None)
    assert (taichi.loss.mask, taichi.loss.concentration, vox.loss.mask) == (1, 1, 0)
    for config in (vox, taichi, ted, mgif):
        assert (config.training.learning_rate, config.training.betas) == (2e-4, (0.5, 0.999))
        assert (config.training.epochs, config.training.milestones) == (100, (0.6, 0.9))
        assert (config.loss.perceptual, config.loss.equivariance_keypoints) == (10, 10)
        assert config.model.estimator.variant == "paper"


@pytest.mark.parametrize("name", ["vox", "taichi", "ted", "mgif"])
def test_the_releases_presets_differ_in_the_variant_only(name):
    found = differences(load_preset(name), load_preset(f"{name}-release"))
    assert found["model.estimator.variant"] == ("paper", "release")
    assert found["loss.equivariance_affine"] == (0, 10)
    assert ("model.generator.skips" in found) == (name in ("ted", "mgif"))
    others = {"model.estimator.variant", "loss.equivariance_affine", "model.generator.skips"}
    assert found.keys() <= others


def test_a_file_builds_on_a_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: ted\ntraining: {learning_rate: 3e-4}\ndata: {augmentation: {hue: 0}}\n")
    config = load_file(file)
    assert differences(load_preset("ted"), config) == {
        "training.learning_rate": (2e-4, 3e-4),
        "data.augmentation.hue": (0.1, 0.0),
    }
    file.write_text("model: {resolution: 128}\n")
    assert differences(Config(), load_file(file)) == {"model.resolution": (256, 128)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preset: tedd", "no preset 'tedd'; did you mean 'ted'?"),
        ("training: {stepz: 3}", "unknown setting 'training.stepz'; did you mean 'steps'?"),
        ("training: {steps: many}", "training.steps: expected a whole number, not 'many'"),
        ("training: [", "is no YAML: "),
        ("just words", "expected settings as `key: value` lines, not 'just words'"),
        ("", "expected settings as `key: value` lines, not None"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_file(tmp_path / "mine.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the configuration '.*none\.yaml'"):
        load_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(("text", "value"), [("3e-4", 3e-4), ("1E5", 1e5), (".5e1", 5.0), ("-2e-3", -2e-3)])
def test_numbers_with_exponents_are_numbers(text, value):
    if value > 0:
        assert override(Config(), [f"training.learning_rate={text}"]).training.learning_rate == value
    else:
        assert f"{value} is out of range" in refused(f"training.learning_rate={text}")


def test_a_description_names_every_setting():
    said = describe(load_preset("small"))
    for key, value in (("batch_size", "4"), ("augmentation.window", "[0.75,1.0]"), ("estimator.layers", "8")):
        assert f"{key}={value}" in said.split()
    assert len(said.split()) >= len(flat(load_preset("small")))


def test_a_checkpoint_of_another_version_keeps_its_network():
    values = to_mapping(load_preset("small"))
    values["training"]["gone"] = 1
    values["data"]["augmentation"]["crop"] = 0.8
    values["unheard_of"] = {}
    assert from_checkpoint(values) == load_preset("small")
    values["model"]["gone"] = 1
    with pytest.raises(InputError, match=r"unknown setting 'model\.gone'"):
        from_checkpoint(values)


# Estimators


def test_an_estimator_is_chosen_by_its_name():
    config = override(Config(), ["model.estimator.name=mraa", "model.estimator.temperature=0.2"])
    assert config.model.estimator == HeatmapEstimatorConfig(name="mraa", temperature=0.2)
    assert override(config, ["model.estimator.name=motion-transformer"]) == Config()
    same = override(config, ["model.estimator.name=mraa"])
    assert same.model.estimator.temperature == 0.2


def test_a_file_names_another_estimator_than_its_preset(tmp_path):
    (tmp_path / "x.yaml").write_text("preset: vox\nmodel: {estimator: {name: fomm, num_blocks: 4}}")
    assert load_file(tmp_path / "x.yaml").model.estimator == HeatmapEstimatorConfig(num_blocks=4)


def test_an_estimator_of_an_older_checkpoint_is_the_transformer():
    found = from_mapping(Config, {"model": {"estimator": {"heads": 4}}}).model.estimator
    assert found == MotionTransformerConfig(heads=4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.estimator.name=x2face", "model.estimator.name: 'x2face' is not one of motion-transformer, fomm"),
        ("model.estimator={name: tpsmm, identity_width: 8}", "identity_width and pose_width belong together"),
        ("model.estimator={name: fomm, heads: 3}", "unknown setting 'model.estimator.heads'"),
        ("model.estimator={name: mraa, shared_affine: true}", "mraa regresses no matrices"),
        ("model.estimator={name: fomm, scale_factor: 0.125, num_blocks: 6}", "needs a multiple of 64"),
        ("model.estimator={name: fomm, temperature: 0}", "temperature: 0.0 is out of range"),
    ],
)
def test_wrong_estimators(setting, said):
    with pytest.raises(InputError) as caught:
        override(Config(), [setting])
    assert said in str(caught.value)


def test_a_checkpoints_configuration_survives_the_round_trip():
    config = load_preset("fomm")
    assert from_checkpoint(json.loads(json.dumps(to_mapping(config)))) == config
