"""The other commands as a user runs them."""

import json
import os
import subprocess
import sys
from functools import lru_cache

import pytest
import yaml
from commands import installed, moving_disc, run_here, tiny_config
from forks import run

from mtanimate.config import to_mapping
from mtanimate.inspection import complexity
from mtanimate.video import VideoWriter


def test_help_is_fast_and_does_not_import_torch():
    seconds = []
    for _ in range(5):
        before = os.times()
        done = installed("--help")
        after = os.times()  # of the processor, since tests run on busy machines; Windows does not tell
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0
    assert "animate" in done.stdout
    assert min(seconds) < 0.6  # 0.3 s
    heavy = ("torch", "numpy", "PIL", "dlib", "matplotlib")
    code = f"import sys, mtanimate, mtanimate.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_reading_a_checkpoint_does_not_import_pytorchs_compiler():
    """It takes seconds. Numbers drawn for weights without values, on the meta device, would need it."""
    networks = "[Animator(load_preset(name).model) for name in ('fomm', 'taichi-release')]"  # as an import builds them
    code = (
        "import sys, torch, mtanimate; from mtanimate.config import load_preset; "
        "from mtanimate.models.animator import Animator; mtanimate.load(); torch.device('meta').__enter__(); "
        f"{networks}; print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("command", ["animate", "train", "attention", "inspect", "models", "doctor", "data prepare"])
def test_every_command_has_help_with_an_example(command):
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert f"mtanimate {command}" in done.stdout.partition("Example:")[2]


def test_models(monkeypatch):
    monkeypatch.setattr(complexity, "model_complexities", lru_cache(complexity.model_complexities))  # counting is slow
    rows = json.loads(run_here("models", "--json").stdout)["models"]
    found = {(row["backbone"], row["variant"], row["part"]): row for row in rows}
    for backbone, millions in (("stem", 5.559), ("hrnet_w32", 12.232), ("hrnet_w48", 21.301)):
        row = found[backbone, "paper", "motion_estimator"]
        assert row["parameters"] / 1e6 == pytest.approx(millions, rel=1e-3)
    assert 7.4e9 < found["hrnet_w32", "paper", "motion_estimator"]["multiply_adds"] < 7.9e9
    estimators = {row["name"]: row["parameters"] for row in rows if row["part"] == "motion_estimator"}
    assert (estimators["fomm"], estimators["mraa"]) == (14_215_368, 14_146_728)
    assert estimators["monkey-net"] == estimators["mraa"]
    generator = found["", "full size", "image_generator"]
    assert generator["parameters"] == 45_575_391
    assert generator["multiply_adds"] == pytest.approx(53.7e9, rel=0.01)
    assert "12.23 M" in run_here("models").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "--resolution", "64"],  # a part of the network would have half a pixel left
        ["models", "--resolution", "129"],
        ["models", "--resolution", "100000128"],
        ["data", "cache", ".", "--out", "out", "--resolution", "100000000"],
        ["data", "prepare", ".", "--out", "out", "--size", "100000000"],
    ],
    ids=" ".join,
)
def test_pictures_of_a_size_that_cannot_be(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_here(*arguments)
    assert done.returncode == 2
    assert arguments[-2].strip("-") in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_doctor():
    done = run("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert findings["encoder libx264"]["ok"]
    assert findings["torch"]["ok"]
    assert any(what.startswith("checkpoint") for what in findings)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    (folder / "train").mkdir()
    for name in ("ann__00", "ann__01", "bob__00"):
        with VideoWriter(folder / "train" / f"{name}.mp4", fps=25, width=64, height=64) as writer:
            writer.write(moving_disc(12))
    return folder


@pytest.fixture(scope="module")
def settings():
    """The tiny network as --set options."""

    def flat(values, prefix=""):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}={yaml.safe_dump(value, default_flow_style=True).strip().removesuffix('...')}"

    model = to_mapping(tiny_config())["model"]
    model.pop("background")
    phases = {"equivariance_steps": 0, "warmup_steps": 0}
    return [text for item in flat({"model": model, "training": phases}) for text in ("--set", item)]


def test_train_then_animate_with_what_was_trained(clips, settings, media, tmp_path):
    folder = tmp_path / "run"
    options = ["--dataset", clips, "--out", folder, "--batch-size", 2, *settings, "--set", "training.picture_every=2"]
    first = run("train", *options, "--steps", 2, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["steps"] == 2
    again = run("train", *options, "--steps", 4, "--json")
    assert "resuming at step 2" in again.stderr
    result = json.loads(again.stdout)
    assert result["steps"] == 4
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert (folder / "config.yaml").exists()
    assert len(list((folder / "pictures").iterdir())) == 2
    animated = run(
        "animate", "--source", media / "face.png", "--driving", media / "silent.mp4",
        "--out", tmp_path / "o.mp4", "--checkpoint", result["checkpoint"],
    )  # fmt: skip
    assert animated.returncode == 0, animated.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--set", "training.stepz=1"], "'steps'"),
        (["--set", "training.steps=many"], "training.steps"),
        (["--set", "training.steps"], "--set training.steps"),
        (["--preset", "smal"], "'small'"),
        (["--init", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_bad_training_input(clips, tmp_path, changes, said):
    done = run_here("train", "--dataset", clips, "--out", tmp_path / "run", *changes)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset", "vox"],  # no videos are needed
        ["--dataset", "taichi-release"],
        ["--dataset", "small", "--estimator", "fomm"],
        ["--dataset", "small", "--steps", 7, "--freeze", "generator", "--set", "training.learning_rate=1e-5"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_the_printed_config_gives_the_same_config(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_here("train", *arguments, "--print-config")
    assert (first.returncode, first.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.yaml").write_text(first.stdout)
    again = run_here("train", "--dataset", "mine.yaml", "--print-config")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    as_json = run_here("train", "--dataset", "mine.yaml", "--print-config", "--json")
    assert json.loads(as_json.stdout) == yaml.safe_load(first.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_the_printed_config_is_what_is_trained(clips, settings, tmp_path):
    options = ["--dataset", clips, "--batch-size", 2, "--steps", 1, *settings]
    printed = run_here("train", *options, "--print-config")
    assert printed.returncode == 0, printed.stderr
    trained = run_here("train", *options, "--out", tmp_path / "run", "--quiet")
    assert trained.returncode == 0, trained.stderr
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))
    assert yaml.safe_load(printed.stdout) == written
    assert set(written) == {"model", "data", "loss", "training"}


def test_the_printed_config_of_a_checkpoint_has_its_network(media, clips, tmp_path):
    printed = run_here("train", "--dataset", clips, "--init", media / "tiny.safetensors", "--print-config")
    assert printed.returncode == 0, printed.stderr
    values = yaml.safe_load(printed.stdout)
    assert values["model"]["resolution"] == 64
    assert values["training"]["warmup_steps"] == 0


@pytest.mark.parametrize("wrong", [["--preset", "smal"], ["--set", "training.stepz=1"], ["--dataset", "nowhere"]])
def test_no_config_is_printed_of_wrong_settings(clips, wrong):
    done = run_here("train", "--dataset", clips, "--print-config", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert wrong[0] in done.stderr or wrong[1] in done.stderr


def test_data_check(clips, tmp_path):
    done = run("data", "check", clips, "--json")
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)
    assert (findings["train"], findings["identities"], findings["frames"], findings["problems"]) == (3, 2, 36, [])
    assert findings["samples_per_second"] > 0
    (tmp_path / "broken.mp4").write_text("no video")
    done = run("data", "check", tmp_path)
    assert done.returncode == 1
    assert "broken.mp4" in done.stderr
    assert "samples/s" not in done.stdout
