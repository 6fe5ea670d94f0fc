"""`evaluate(resolution=...)`: results rendered and measured at the clip's own size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CONFIG, MODEL, moving_square, tiny_animator, write_video

from mtanimate import Predictor
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.errors import InputError
from mtanimate.evaluation.comparison import compare
from mtanimate.evaluation.evaluate import evaluate
from mtanimate.faces.detection import centred_square, square_frames
from mtanimate.inference.enlargement import SourcePixels
from mtanimate.metrics.measures import DEFAULT_AT_OWN_SIZE
from mtanimate.models.animator import Animator
from mtanimate.video import VideoReader, read_image

RESOLUTION = MODEL.resolution
METRICS = "l1,psnr,ssim,sharpness"


def textured(count: int, height: int, width: int) -> np.ndarray:
    """A square that wanders before a wall of random stones of two pixels."""
    stones = np.random.default_rng(0).integers(20, 220, (height // 2, width // 2, 1), np.uint8)
    frames = np.tile(stones.repeat(2, 0).repeat(2, 1), (count, 1, 1, 3))
    top, left = (height - 64) // 2, (width - 64) // 2
    wanders = moving_square(count, 0.4)
    moves = (wanders == (240, 120, 40)).all(axis=-1)
    frames[:, top : top + 64, left : left + 64][moves] = (240, 120, 40)
    return frames


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    write_checkpoint(path, tiny_animator(), CONFIG, {"steps": 0})
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Of 64, 96 and 130 pixels: the smaller sides."""
    folder = tmp_path_factory.mktemp("clips")
    for name, height, width in (("a__small", 64, 64), ("b__middle", 112, 96), ("c__large", 130, 170)):
        write_video(folder / f"{name}.mp4", textured(5, height, width))
    return folder


def measured(checkpoint, clips, out, **options):
    options = {"metrics": METRICS, "detector": "none", "device": "cpu", "every": 2, **options}
    return evaluate(str(checkpoint), clips, out=out, **options)


@pytest.fixture(scope="module")
def result(checkpoint, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    return measured(checkpoint, clips, folder / "out", resolution="auto", frames=folder / "frames")


def rows(result) -> dict[str, dict]:
    lines = (Path(result["out"]) / "videos.jsonl").read_text("utf-8").splitlines()
    return {line["video"]: line for line in map(json.loads, lines)}


def test_the_side_is_the_clips_own(result):
    sides = {"a__small": 64, "b__middle": 96, "c__large": 130}
    assert {name: row["side"] for name, row in rows(result).items()} == sides
    assert result["sides"] == [64, 130]
    for name, side in sides.items():
        assert read_image(Path(result["out"]) / "strips" / f"{name}.png").shape == (side, 3 * side, 3)


def test_it_is_limited(checkpoint, clips, tmp_path):
    found = rows(measured(checkpoint, clips, tmp_path, resolution=100))
    assert [row["side"] for row in found.values()] == [64, 96, 100]


def test_truth_and_result_are_of_that_size(checkpoint, clips, result):
    """The result is what the predictor's layers give with the first frame's own pixels."""
    frames = Path(result["out"]).parent / "frames"
    for name in ("b__middle", "c__large"):
        clip = VideoReader(clips / f"{name}.mp4")
        (batch,) = clip.batches(5)
        square = centred_square(clip.width, clip.height)
        predictor = Predictor.load(str(checkpoint), device="cpu", precision="fp32")
        source = predictor.encode(square_frames(batch[:1], RESOLUTION))
        driving = square_frames(batch[::2], RESOLUTION)
        layers = predictor.drive_layers(source, predictor.estimate(driving))
        wanted = SourcePixels(batch[0], square, square.side).render(layers)
        distances = []
        for index, number in enumerate((0, 2, 4)):
            truth, generated = (
                read_image(frames / side / name / f"{number:07d}.png").astype(int) for side in ("truth", "generated")
            )
            assert (truth == square.cut(batch[number])).all()
            assert np.abs(generated - wanted[index]).max() <= 1
            distances.append(np.abs(truth - generated).mean() / 255)
        assert rows(result)[name]["generated.l1"] == pytest.approx(np.mean(distances), rel=1e-5)


def test_the_enlarged_picture_stands_beside_it(result):
    found = rows(result)
    assert found["a__small"]["enlarged.ssim"] == found["a__small"]["generated.ssim"]
    for name in ("b__middle", "c__large"):
        assert found[name]["enlarged.l1"] != found[name]["generated.l1"]
        assert found[name]["enlarged.sharpness"] != found[name]["generated.sharpness"]
    differences = result["enlarged"]["differences"]
    apart = result["metrics"]["psnr"] - result["enlarged"]["metrics"]["psnr"]
    assert differences["psnr"]["mean"] == pytest.approx(apart)
    better = sum(row["generated.psnr"] > row["enlarged.psnr"] for row in found.values())
    assert (differences["psnr"]["better"], differences["psnr"]["videos"]) == (better, 3)


def test_what_does_not_move_is_as_sharp_as_itself(checkpoint, tmp_path):
    write_video(tmp_path / "clips" / "still.mp4", textured(1, 130, 130).repeat(4, axis=0))
    found = measured(checkpoint, tmp_path / "clips", tmp_path / "out", resolution="auto")
    assert found["repeating"]["metrics"]["sharpness"] == pytest.approx(1, abs=0.02)  # H.264 is lossy
    assert found["enlarged"]["metrics"]["sharpness"] < 0.9


def test_without_it_nothing_has_changed(checkpoint, clips, tmp_path):
    found = measured(checkpoint, clips, tmp_path)
    assert "enlarged" not in found
    assert "largest_side" not in found["settings"]
    assert all("side" not in row for row in rows(found).values())
    assert read_image(tmp_path / "strips" / "c__large.png").shape == (64, 192, 3)


def test_at_the_networks_size_figures_are_those_without_it(checkpoint, clips, tmp_path):
    found = measured(checkpoint, clips, tmp_path / "here", resolution=RESOLUTION)
    usual = measured(checkpoint, clips, tmp_path / "there")
    assert found["metrics"] == usual["metrics"] == found["enlarged"]["metrics"]
    assert found["repeating"] == usual["repeating"]


def test_it_goes_on_and_other_sizes_are_refused(checkpoint, clips, result):
    said: list[str] = []
    again = measured(checkpoint, clips, result["out"], resolution=1440, log=said.append)
    assert "3 of 3 videos were measured before" in said
    assert again["metrics"] == result["metrics"]
    for other in (100, None):
        with pytest.raises(InputError, match=f"largest_side is 1440, not {other}"):
            measured(checkpoint, clips, result["out"], resolution=other)


def test_folders_of_before_go_on(checkpoint, clips, tmp_path):
    """Their results have no side."""
    measured(checkpoint, clips, tmp_path)
    for file in (tmp_path / "videos").glob("*.json"):
        values = json.loads(file.read_text("utf-8"))
        del values["side"]
        file.write_text(json.dumps(values), "utf-8")
    said: list[str] = []
    measured(checkpoint, clips, tmp_path, log=said.append)
    assert "3 of 3 videos were measured before" in said
    with pytest.raises(InputError, match="largest_side is None, not 1440"):
        measured(checkpoint, clips, tmp_path, resolution="auto")


def test_by_default_it_measures_sharpness_too(checkpoint, clips, tmp_path):
    assert measured(checkpoint, clips, tmp_path, metrics=None, resolution=80)["metrics"].keys() == set(
        DEFAULT_AT_OWN_SIZE
    )


def test_what_cannot_be_measured_so_is_refused(checkpoint, clips, tmp_path):
    torch.manual_seed(0)
    model = replace(MODEL, generator=replace(MODEL.generator, skips=False))
    write_checkpoint(tmp_path / "no-skips.safetensors", Animator(model), replace(CONFIG, model=model), {"steps": 0})
    with pytest.raises(InputError, match="--resolution: this network"):
        measured(tmp_path / "no-skips.safetensors", clips, tmp_path / "out", resolution="auto")
    for wrong, said in ((32, "--resolution 32: this network makes 64 x 64"), ("large", "--resolution large")):
        with pytest.raises(InputError, match=said):
            measured(checkpoint, clips, tmp_path / "out", resolution=wrong)
    (tmp_path / "poses").mkdir()
    with pytest.raises(InputError, match="--openpose"):
        measured(checkpoint, clips, tmp_path / "out", resolution="auto", openpose=tmp_path / "poses")
    assert not (tmp_path / "out").exists()


def test_evaluations_of_one_size_are_compared(checkpoint, clips, result, tmp_path):
    other = tmp_path / "other"
    measured(checkpoint, clips, other, resolution="auto")
    found = compare([result["out"], str(other)], tmp_path / "compared")
    assert found["differences"]["other"]["sharpness"]["mean"] == 0
    assert read_image(found["picture"]).shape[1] == 4 * RESOLUTION + 3 * 2
    usual = tmp_path / "usual"
    measured(checkpoint, clips, usual)
    for pair in ([result["out"], str(usual)], [str(usual), result["out"]]):
        with pytest.raises(InputError, match="largest_side"):
            compare(pair, tmp_path / "compared")
