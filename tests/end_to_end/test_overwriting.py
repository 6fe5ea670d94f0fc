"""Nobody's file is replaced unasked: not one that is there, not one that comes while a command works, and no input."""

import re
import shutil
from pathlib import Path

import pytest
from forks import Running

import mtanimate
from mtanimate.checkpoints import conversion as exporting
from mtanimate.checkpoints.conversion import export_checkpoint
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.inspection.attention import show_attention
from mtanimate.inspection.inspect import inspect
from mtanimate.inspection.subject import Subject


def animation(media: Path, **changes) -> dict:
    files = {"source": media / "face.png", "driving": media / "talk.mp4", "checkpoint": str(media / "tiny.safetensors")}
    return {**files, "crop": "none", "driving_crop": "none", "end": 0.2, **changes}


def coming(path: Path):
    """To be called by a command: somebody writes there meanwhile."""

    def come(*said, **more) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")

    return come


def kept(path: Path) -> None:
    assert path.read_text() == "precious"
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # and nothing hidden


def test_two_at_once_with_one_new_name(media: Path, tmp_path: Path) -> None:
    options = {name.replace("_", "-"): value for name, value in animation(media, out=tmp_path / "o.mp4").items()}
    command = ["animate", *(text for name, value in options.items() for text in (f"--{name}", value))]
    with Running(*command) as one, Running(*command) as other:
        both = [running.end() for running in (one, other)]
    assert sorted(done.returncode for done in both) == [0, 1], both
    assert [file.name for file in tmp_path.iterdir()] == ["o.mp4"]


@pytest.mark.parametrize("name", ["o.mp4", "o.png", "o/0.png"])
def test_a_result_that_comes_while_it_is_made(media: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    files = animation(media, out=out)
    if name == "o.png":
        files |= {"driving": media / "face.png", "end": None}
    if name == "o/0.png":
        files |= {"out": out.parent, "codec": "png"}
    with pytest.raises(MTAnimateError, match=re.escape(str(files["out"]))):
        mtanimate.animate(**files, progress=coming(out))
    kept(out)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_motion_is_kept_only_where_nothing_is(media: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    files = animation(media, out=tmp_path / "o.mp4", save_motion=path)
    with pytest.raises(MTAnimateError, match=re.escape(str(path))):
        mtanimate.animate(**files, progress=coming(path))
    kept(path)
    with pytest.raises(InputError, match="exists already"):
        mtanimate.animate(**files, progress=_never)
    with pytest.raises(InputError, match="no motion"):
        mtanimate.animate(**files, overwrite=True, progress=_never)
    kept(path)
    path.unlink()
    mtanimate.animate(**files)
    mtanimate.animate(**files, overwrite=True)


def test_motion_goes_into_no_input_and_into_no_missing_folder(media: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copy(media / "tiny.safetensors", tmp_path))
    before = checkpoint.read_bytes()
    for path in (checkpoint, tmp_path / "nowhere" / "m.npz"):
        files = animation(media, out=tmp_path / "o.mp4", save_motion=path, checkpoint=str(checkpoint))
        with pytest.raises(InputError, match=path.name):
            mtanimate.animate(**files, overwrite=True, progress=_never)
    assert checkpoint.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("name", ["o.png", "o.svg", "o.mp4"])
@pytest.mark.parametrize("command", [inspect, show_attention])
def test_a_figure_that_comes_while_it_is_drawn(media: Path, tmp_path: Path, monkeypatch, name: str, command) -> None:
    out = tmp_path / name
    subject = Subject.of(source=media / "face.png", driving=media / "talk.mp4", crop="none", driving_crop="none")
    opened = Subject.open

    def open_slowly(self, *arguments):
        coming(out)()
        return opened(self, *arguments)

    monkeypatch.setattr(Subject, "open", open_slowly)
    with pytest.raises(MTAnimateError, match=re.escape(str(out))):
        command(subject, out=out, checkpoint=str(media / "tiny.safetensors"))
    kept(out)


def test_raw_attention_that_comes_while_it_is_written(media: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "a.npz"
    raw.parent.mkdir()
    subject = Subject.of(source=media / "face.png", driving=media / "talk.mp4", crop="none", driving_crop="none")
    with pytest.raises(MTAnimateError, match=re.escape(str(raw))):
        show_attention(
            subject,
            out=tmp_path / "o.mp4",
            raw=raw,
            checkpoint=str(media / "tiny.safetensors"),
            progress=coming(raw),
        )
    kept(raw)


@pytest.mark.parametrize("name", ["o.pth.tar", "o.yaml"])
def test_a_converted_checkpoint_that_comes_meanwhile(media: Path, tmp_path: Path, monkeypatch, name: str) -> None:
    translate = exporting.write_configuration if name == "o.yaml" else exporting.to_layout

    def slowly(*arguments):
        coming(tmp_path / "there" / name)()
        return translate(*arguments)

    (tmp_path / "there").mkdir()
    monkeypatch.setattr(exporting, translate.__name__, slowly)
    monkeypatch.setattr(exporting, "unfit", lambda *arguments: "")
    with pytest.raises(MTAnimateError, match=re.escape(name)):
        export_checkpoint(str(media / "tiny.safetensors"), "release", tmp_path / "there" / "o.pth.tar")
    kept(tmp_path / "there" / name)


def _never(*said, **more) -> None:
    raise AssertionError(f"work had begun: {said}")
