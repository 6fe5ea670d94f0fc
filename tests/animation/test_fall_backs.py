"""What goes wrong in the middle of an animation: mended and said, or an error of one line; never black frames."""

import json
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from tiny import CONFIG, MODEL, moving_square, tiny_animator

from mtanimate.animation import inputs as walk
from mtanimate.animation import jobs
from mtanimate.animation.animate import animate
from mtanimate.animation.jobs import run_jobs
from mtanimate.checkpoints.file import read_checkpoint, write_checkpoint
from mtanimate.config import BackgroundConfig
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import Square
from mtanimate.inference import loading
from mtanimate.models.animator import Animator
from mtanimate.video import VideoReader, VideoWriter, read_image, write_image

FRAMES = 14  # three batches and a half


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """face.png, other.png, talk.mp4; tiny.safetensors, and background.safetensors, whose backgrounds move."""
    folder = tmp_path_factory.mktemp("media")
    write_image(folder / "face.png", moving_square(1, 0)[0])
    write_image(folder / "other.png", moving_square(1, 0)[0][::-1].copy())
    with VideoWriter(folder / "talk.mp4", fps=Fraction(25), width=64, height=64) as writer:
        writer.write(moving_square(FRAMES, 0.3))
    write_checkpoint(folder / "tiny.safetensors", tiny_animator(), CONFIG, {"steps": 0})
    config = replace(CONFIG, model=replace(MODEL, background=BackgroundConfig(4, 8, 2)))
    torch.manual_seed(0)
    animator = Animator(config.model)
    torch.nn.init.normal_(animator.background_predictor.fc.weight, std=0.3)
    write_checkpoint(folder / "background.safetensors", animator, config, {"steps": 0})
    return folder


def perform(media, out, checkpoint="tiny", **options):
    given = {"source": media / "face.png", "driving": media / "talk.mp4", "out": out, "precision": "fp32"} | options
    # Lossless, and the network's squares alone: what is compared is what it gave.
    fixed = {"codec": "ffv1", "crop": "none", "driving_crop": "none", "device": "cpu", "reference_frame": "first"}
    return animate(checkpoint=str(media / f"{checkpoint}.safetensors"), **fixed, **given)


def frames(path):
    return VideoReader(path).frames(range(FRAMES)).astype(int)


@pytest.fixture
def hooked(monkeypatch):
    """Gives the network that `animate` loads hooks, which its copies have, too: hook(part, calls, change) changes what
    these calls of a part give, from 0 on, in half precision where `half`."""

    def hook(part, calls, change, half=False):
        def load(*given):
            checkpoint, count = read_checkpoint(*given), iter(range(10**6))

            def spoil(module, inputs, result):
                if half and not torch.is_autocast_enabled("cpu"):
                    return result
                return change(result) if next(count) in calls else result

            checkpoint.animator.get_submodule(part).register_forward_hook(spoil)
            return checkpoint

        monkeypatch.setattr(loading, "read_checkpoint", load)

    return hook


def no_motion(motion):
    return replace(motion, keypoints=motion.keypoints * torch.nan)


def no_masks(dense):
    return replace(dense, masks=dense.masks * torch.nan, flow=dense.flow * torch.nan)


def full(result):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("faces", [1, 2])
@pytest.mark.parametrize(
    ("part", "call", "change"),
    [("motion_estimator", 2, no_motion), ("motion_estimator", 4, no_motion), ("dense_motion", 2, no_masks)],
)
def test_half_precision_that_fails_in_the_middle(faces, part, call, change, media, hooked, monkeypatch, tmp_path):
    """A batch of the driving video, after the sources were encoded; or, of two faces, the second in the first batch."""
    squares = [Square(0, 0, 64), Square(16, 16, 48)][:faces]
    monkeypatch.setattr(walk, "frame_subjects", lambda *given: squares)
    monkeypatch.setattr(loading, "choose_precision", lambda *given: "fp16")
    hooked(part, [call], change, half=True)
    found = perform(media, tmp_path / "found.mkv", paste_back=True)
    monkeypatch.undo()
    monkeypatch.setattr(walk, "frame_subjects", lambda *given: squares)
    perform(media, tmp_path / "wanted.mkv", paste_back=True)
    assert found.precision == "fp32"
    assert len(found.warnings) == 1
    assert np.abs(frames(tmp_path / "found.mkv") - frames(tmp_path / "wanted.mkv")).max() <= 4


def test_frames_whose_motion_is_not_finite_hold_the_motion_before(media, hooked, tmp_path):
    """The source is the first call, frames 4 to 7 the third."""
    hooked("motion_estimator", [2], no_motion)
    found = perform(media, tmp_path / "a.mkv", smooth=0.05)
    assert found.lost_frames == [4, 5, 6, 7]
    assert any("4-7" in warning for warning in found.warnings)
    hooked("motion_estimator", [], no_motion)
    perform(media, tmp_path / "b.mkv")
    hooked("motion_estimator", [2], no_motion)
    perform(media, tmp_path / "c.mkv")
    held, whole = frames(tmp_path / "c.mkv"), frames(tmp_path / "b.mkv")
    assert (held[:4] == whole[:4]).all()
    assert (held[8:] == whole[8:]).all()
    assert (held[4:8] == held[3]).all()
    assert (frames(tmp_path / "a.mkv").max(axis=(1, 2, 3)) > 20).all()


def test_frames_that_come_out_not_finite_show_the_one_before(media, hooked, tmp_path):
    hooked("dense_motion", [1], no_masks)
    found = perform(media, tmp_path / "a.mkv")
    hooked("dense_motion", [], no_masks)
    perform(media, tmp_path / "b.mkv")
    held, whole = frames(tmp_path / "a.mkv"), frames(tmp_path / "b.mkv")
    assert (held[4:8] == whole[3]).all()
    assert (np.delete(held, range(4, 8), axis=0) == np.delete(whole, range(4, 8), axis=0)).all()
    assert len(found.warnings) == 1


def test_a_moving_source_shows_the_frame_before(media, hooked, tmp_path):
    """Each of its frames has a source of its own."""
    hooked("dense_motion", [1], no_masks)
    found = perform(media, tmp_path / "a.mkv", source=media / "talk.mp4")
    held = frames(tmp_path / "a.mkv")
    assert (held[4:8] == held[3]).all()
    assert (held[8] != held[3]).any()
    assert len(found.warnings) == 1


@pytest.mark.parametrize("calls", [[0], range(1, 100)])
def test_no_finite_motion_at_all_is_an_error(calls, media, hooked, tmp_path):
    """Of the source; of every driving frame."""
    hooked("motion_estimator", calls, no_motion)
    with pytest.raises(InputError, match="finite"):
        perform(media, tmp_path / "a.mkv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("part", "call"), [("motion_estimator", 2), ("dense_motion", 1), ("dense_motion", 3)])
def test_a_gpu_that_is_full_computes_less_at_once(part, call, media, hooked, tmp_path):
    hooked(part, [call], full)
    found = perform(media, tmp_path / "a.mkv")
    hooked(part, [], full)
    perform(media, tmp_path / "b.mkv")
    assert [warning for warning in found.warnings if "out of memory" in warning]
    assert np.abs(frames(tmp_path / "a.mkv") - frames(tmp_path / "b.mkv")).max() <= 1


def test_a_gpu_that_has_no_room_at_all_is_an_error_and_no_file(media, hooked, tmp_path):
    hooked("dense_motion", range(100), full)
    with pytest.raises(MTAnimateError, match="out of memory"):
        perform(media, tmp_path / "a.mkv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, {4, 2}), (5, {5, 4}), (100, {14})])
def test_so_many_frames_are_computed_at_once(batch_size, sizes, media, hooked, tmp_path):
    seen = set()

    def look(dense):
        seen.add(len(dense.flow))
        return dense

    hooked("dense_motion", range(100), look)
    perform(media, tmp_path / "a.mkv", batch_size=batch_size)
    assert seen == sizes


@pytest.mark.parametrize("compare", [False, True])
def test_an_animation_that_fails_leaves_no_thread_behind(compare, media, tmp_path):
    def stop(done, total, stage):
        if stage == "animating" and done:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        perform(media, tmp_path / "a.mkv", compare=compare, progress=stop)
    assert [thread for thread in threading.enumerate() if thread.name == "prefetch"] == []
    assert caught.value.__traceback__  # which would keep them alive


# Many at once


@pytest.fixture
def four(media, tmp_path):
    rows = [f"{media / 'face.png'},{media / 'talk.mp4'},{name}.mkv,ffv1,none,none" for name in "abcd"]
    file = tmp_path / "jobs.csv"
    file.write_text("\n".join(["source,driving,out,codec,crop,driving-crop", *rows]) + "\n")
    return file


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error:\n device-side assert"), MemoryError(), ZeroDivisionError("x")]
)
def test_whatever_happens_to_a_row_is_that_rows(error, workers, media, four, monkeypatch):
    whole = jobs.run_job

    def fail(job, *given, **options):
        if job.out.name == "b.mkv":
            raise error
        return whole(job, *given, **options)

    monkeypatch.setattr(jobs, "run_job", fail)
    options = {"checkpoint": str(media / "tiny.safetensors"), "device": "cpu", "precision": "fp32"}
    done = run_jobs(four, workers=workers, **options)
    assert (done.done, done.failed) == (3, 1)
    lines = [json.loads(line) for line in (four.parent / "jobs.csv.report.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["status"] == "failed"]
    assert [line["line"] for line in failed] == [3]
    assert failed[0]["error"].startswith(type(error).__name__)
    assert "\n" not in failed[0]["error"]
    monkeypatch.undo()
    again = run_jobs(four, **options)
    assert (again.done, again.skipped, again.failed) == (1, 3, 0)


def test_ctrl_c_ends_all_rows(media, four, monkeypatch):
    def interrupt(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_job", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(four, checkpoint=str(media / "tiny.safetensors"), device="cpu", precision="fp32")


# The background's motion, kept


@pytest.mark.parametrize(
    ("saved", "suffix"),
    [
        ("relative", ".safetensors"),
        ("absolute", ".npz"),
        pytest.param("relative", ".npz", marks=pytest.mark.slow),
        pytest.param("absolute", ".safetensors", marks=pytest.mark.slow),
    ],
)
def test_kept_motion_moves_the_background_as_the_video_did(saved, suffix, media, tmp_path):
    motion = tmp_path / f"m{suffix}"
    perform(media, tmp_path / "saved.mkv", "background", mode=saved, save_motion=motion)
    for mode in ("absolute", "relative"):
        perform(media, tmp_path / f"{mode}.mkv", "background", mode=mode)
        perform(media, tmp_path / f"{mode} again.mkv", "background", mode=mode, driving=None, motion=motion)
        assert (frames(tmp_path / f"{mode}.mkv") == frames(tmp_path / f"{mode} again.mkv")).all()
    assert (frames(tmp_path / "absolute.mkv") != frames(tmp_path / "relative.mkv")).any()


def test_the_background_of_another_source_is_not_made_up(media, tmp_path):
    motion = tmp_path / "m.npz"
    perform(media, tmp_path / "saved.mkv", "background", save_motion=motion)
    other = {"source": media / "other.png", "driving": None, "motion": motion}
    perform(media, tmp_path / "relative.mkv", "background", **other)
    with pytest.raises(InputError, match="another source"):
        perform(media, tmp_path / "absolute.mkv", "background", mode="absolute", **other)
    perform(media, tmp_path / "moving.mkv", "background", mode="absolute", **other | {"source": media / "talk.mp4"})


def older(path):
    """The file as earlier versions wrote it."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in ("keypoints", "affine", "lost")}
        about = json.loads(str(stored["about"]))
    about = {name: about[name] for name in ("fps", "checkpoint", "times")} | {"format": "mtanimate-motion-1"}
    np.savez_compressed(path, **arrays, about=np.array(json.dumps(about)))


@pytest.mark.parametrize("checkpoint", ["tiny", "background"])
def test_older_files_work_where_they_say_enough(checkpoint, media, tmp_path):
    motion = tmp_path / "m.npz"
    perform(media, tmp_path / "saved.mkv", checkpoint, save_motion=motion)
    older(motion)
    perform(media, tmp_path / "relative.mkv", checkpoint, driving=None, motion=motion)
    assert (frames(tmp_path / "relative.mkv") == frames(tmp_path / "saved.mkv")).all()
    given = {"mode": "absolute", "driving": None, "motion": motion}
    if checkpoint == "tiny":
        perform(media, tmp_path / "absolute.mkv", checkpoint, **given)
    else:
        with pytest.raises(InputError, match="--mode relative"):
            perform(media, tmp_path / "absolute.mkv", checkpoint, **given)


def test_the_source_is_read_as_it_is(media):
    """What the tests above compare is not one colour."""
    assert read_image(media / "face.png").std() > 10
