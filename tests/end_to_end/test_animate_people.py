"""`mtanimate animate` on what people have: photos and phone videos of every kind, faces anywhere in them."""

import json
import os
import signal
from fractions import Fraction

import numpy as np
import pytest
from commands import ffmpeg, run_here
from drawn_face import scene
from forks import Running
from PIL import Image

import mtanimate
from mtanimate.errors import MTAnimateError, OutOfMemory
from mtanimate.video import VideoReader, VideoWriter, read_image, write_image

pytest.importorskip("dlib", reason="finding faces needs dlib: pip install 'mtanimate[faces]'")


@pytest.fixture(scope="module")
def people(media, tmp_path_factory):
    """photo.png with a face at the left, group.png with two, talk.mp4: a face that moves, gone in frames 15 to 24."""
    folder = tmp_path_factory.mktemp("people")
    write_image(folder / "photo.png", scene(300, 200, (20, 40, 120)))
    write_image(folder / "group.png", scene(400, 200, (20, 50, 110), (240, 40, 120)))
    with VideoWriter(folder / "talk.mp4", fps=Fraction(25), width=320, height=240) as writer:
        for t in range(40):
            place = [] if 15 <= t < 25 else [(100 + t % 12, 50 + t % 5, 130)]
            writer.write(scene(320, 240, *place)[None])
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1.6", "-i", folder / "talk.mp4", "-c:v", "copy", folder / "sound.mp4")
    return folder


def animate(media, out, *options, source, driving, **changes):
    files = ["--source", source, "--driving", driving, "--out", out, "--checkpoint", media / "tiny.safetensors"]
    more = [text for name, value in changes.items() for text in (f"--{name.replace('_', '-')}", value)]
    done = run_here("animate", *files, "--json", *more, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_face_is_framed_and_put_back_into_the_whole_photo(media, people, tmp_path):
    result = animate(media, tmp_path / "o.mkv", source=people / "photo.png", driving=people / "sound.mp4", codec="ffv1")
    assert (result["width"], result["height"], result["frames"], result["audio"]) == (300, 200, 40, True)
    photo = read_image(people / "photo.png")
    frames = VideoReader(tmp_path / "o.mkv").frames(range(40))
    changed = (frames != photo).any(axis=(0, 3))
    rows, columns = np.nonzero(changed)
    assert len(rows) > 0
    assert columns.max() < 210  # untouched to the bit beside the face
    assert (frames[:, :, 210:] == photo[:, 210:]).all()


def test_every_face_or_one_of_them(media, people, tmp_path):
    group = {"source": people / "group.png", "driving": people / "talk.mp4", "codec": "ffv1", "end": 0.2}
    picture = read_image(people / "group.png")
    halves = {}
    for face in ("1", "2", "all"):
        animate(media, tmp_path / f"{face}.mkv", face=face, **group)
        frame = VideoReader(tmp_path / f"{face}.mkv").frames([4])[0]
        changed = (frame != picture).any(axis=2)
        halves[face] = (bool(changed[:, :150].any()), bool(changed[:, 250:].any()))
    assert halves == {"1": (True, False), "2": (False, True), "all": (True, True)}


def test_frames_without_the_face_hold_the_motion_and_are_reported(media, people, tmp_path):
    result = animate(media, tmp_path / "o.mkv", source=people / "photo.png", driving=people / "talk.mp4", codec="ffv1")
    assert result["frames"] == 40
    assert set(range(17, 23)) <= set(result["lost_frames"]) <= set(range(12, 28))
    assert any("hold the motion" in warning for warning in result["warnings"])
    frames = VideoReader(tmp_path / "o.mkv").frames(result["lost_frames"])
    assert (frames == frames[0]).all()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_performance_is_kept_and_played_again(suffix, media, people, tmp_path):
    motion = tmp_path / f"motion{suffix}"
    given = {"source": people / "photo.png", "driving": people / "talk.mp4"}
    made = animate(media, tmp_path / "a.mkv", codec="ffv1", save_motion=motion, **given)
    files = ["--source", people / "photo.png", "--motion", motion, "--out", tmp_path / "b.mkv", "--codec", "ffv1"]
    again = run_here("animate", *files, "--checkpoint", media / "tiny.safetensors", "--json")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert (result["frames"], result["lost_frames"], result["audio"]) == (40, made["lost_frames"], False)
    first, second = (VideoReader(tmp_path / name).frames(range(40)) for name in ("a.mkv", "b.mkv"))
    assert (first == second).all()
    other = run_here("animate", *files, "--overwrite")  # the shipped checkpoint
    assert other.returncode == 2
    assert "another checkpoint" in other.stderr


def test_a_picture_drives_one_frame(media, people, tmp_path):
    result = animate(media, tmp_path / "o.png", source=people / "photo.png", driving=people / "group.png")
    assert (result["frames"], result["audio"]) == (1, False)
    picture = Image.open(tmp_path / "o.png")
    assert picture.size == (300, 200)
    assert "AI-generated" in picture.text["Comment"]


def test_a_video_is_the_source(media, people, tmp_path):
    result = animate(media, tmp_path / "o.mkv", source=people / "talk.mp4", driving=people / "talk.mp4", codec="ffv1")
    assert (result["frames"], result["width"], result["height"]) == (40, 320, 240)


def test_side_by_side(media, people, tmp_path):
    options = {"source": people / "photo.png", "driving": people / "talk.mp4", "codec": "ffv1", "end": 0.4}
    result = animate(media, tmp_path / "o.mkv", "--compare", **options)
    assert (result["frames"], result["width"]) == (10, 3 * result["height"])
    assert 150 < result["height"] <= 200  # the square around the face, at its own size


def test_a_stretch_with_its_sound(media, people, tmp_path):
    options = {"source": people / "photo.png", "driving": people / "sound.mp4", "start": 0.4, "end": 1.2}
    result = animate(media, tmp_path / "o.mp4", **options)
    assert (result["frames"], result["audio"]) == (20, True)


@pytest.mark.parametrize("out", ["o.gif", "o.webm", "pictures/", "o.mov"])
def test_other_kinds_of_output(out, media, people, tmp_path):
    result = animate(media, f"{tmp_path}/{out}", source=people / "photo.png", driving=people / "talk.mp4", end=0.2)
    assert result["frames"] == 5
    if out == "pictures/":
        assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == [f"{n:07d}.png" for n in range(5)]
    else:
        assert VideoReader(tmp_path / out).frame_count == 5


def test_results_say_that_they_are_synthetic(media, people, tmp_path):
    files = {"source": people / "photo.png", "driving": people / "talk.mp4", "end": 0.2}
    animate(media, tmp_path / "marked.mp4", **files)
    animate(media, tmp_path / "plain.mp4", "--no-mark", **files)
    assert b"AI-generated" in (tmp_path / "marked.mp4").read_bytes()
    assert b"AI-generated" not in (tmp_path / "plain.mp4").read_bytes()


PHOTOS = {
    "greyscale": lambda picture: picture.convert("L"),
    "CMYK": lambda picture: picture.convert("CMYK"),
    "16 bits": lambda picture: Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257),
    "transparent": lambda picture: Image.merge("RGBA", (*picture.split(), picture.convert("L"))),
    "palette": lambda picture: picture.convert("P"),
}


@pytest.mark.parametrize("kind", PHOTOS)
def test_photos_of_every_kind(kind, media, people, tmp_path):
    source = tmp_path / ("photo.jpg" if kind == "CMYK" else "photo.png")
    PHOTOS[kind](Image.open(people / "photo.png")).save(source)
    result = animate(media, tmp_path / "o.mp4", source=source, driving=people / "talk.mp4", end=0.1)
    assert (result["width"], result["height"]) == (300, 200)


def test_a_photo_that_was_turned_in_the_camera(media, people, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(people / "photo.png").rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif)
    result = animate(media, tmp_path / "o.mp4", source=tmp_path / "turned.jpg", driving=people / "talk.mp4", end=0.1)
    assert (result["width"], result["height"]) == (300, 200)
    assert not any("source" in warning for warning in result["warnings"])  # its face was found, upright


def test_a_phone_video_that_is_stored_on_its_side(media, people, tmp_path):
    turned = tmp_path / "phone.mp4"
    ffmpeg("-i", people / "talk.mp4", "-vf", "transpose=2", tmp_path / "side.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "side.mp4", "-c", "copy", turned)
    reader = VideoReader(turned)
    assert (reader.width, reader.height) in ((320, 240), (240, 320))
    assert animate(media, tmp_path / "o.mp4", source=people / "photo.png", driving=turned)["frames"] == 40


def test_a_read_only_folder_of_inputs(media, people, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in ("photo.png", "talk.mp4"):
        (inputs / name).write_bytes((people / name).read_bytes())
    inputs.chmod(0o555)
    try:
        files = {"source": inputs / "photo.png", "driving": inputs / "talk.mp4", "end": 0.1}
        assert animate(media, tmp_path / "o.mkv", **files)["frames"] == 3
    finally:
        inputs.chmod(0o755)


def test_an_old_pickle_is_no_checkpoint(media, people, tmp_path):
    import pickle

    (tmp_path / "old.pth").write_bytes(pickle.dumps({"run": print}))
    files = ["--source", people / "photo.png", "--driving", people / "talk.mp4", "--out", tmp_path / "o.mp4"]
    done = run_here("animate", *files, "--checkpoint", tmp_path / "old.pth")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("moments", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment(moments, media, people, tmp_path):
    """The output is the old file or the whole new one."""
    out = tmp_path / "o.mp4"
    command = ["animate", "--source", media / "face.png", "--driving", media / "talk.mp4", "--out", out]
    command += ["--checkpoint", media / "tiny.safetensors", "--overwrite", "--quiet", "--crop", "none"]
    whole = 0
    for moment in np.linspace(0, 1, moments):
        out.write_text("the old result")
        with Running(*command) as running:
            running.process.join(moment)
        if out.read_bytes() != b"the old result":
            assert VideoReader(out).frame_count == 20
            whole += 1
    assert whole < moments


@pytest.mark.parametrize("count", [9, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["photo.png", "photo.jpg", "talk.mp4", "talk.mkv", "talk.gif", "tiny.safetensors"])
def test_damaged_input_is_an_error_or_works(kind, count, media, people, tmp_path):
    """Files of each kind: cut off, bytes flipped, heads lied about. In one process, since a start takes seconds."""
    good = tmp_path / kind
    if kind == "photo.jpg":
        Image.open(people / "photo.png").save(good)
    elif kind in ("photo.png", "talk.mp4"):
        good.write_bytes((people / kind).read_bytes())
    elif kind == "tiny.safetensors":
        good.write_bytes((media / kind).read_bytes())
    else:
        ffmpeg("-i", people / "talk.mp4", "-vf", "trim=end_frame=6", good)
    content = good.read_bytes()
    generator = np.random.default_rng(0)
    files = {"source": media / "face.png", "driving": media / "talk.mp4", "checkpoint": str(media / "tiny.safetensors")}
    role = {"photo": "source", "talk": "driving", "tiny": "checkpoint"}[kind.partition(".")[0]]
    outcomes = {"made": 0, "refused": 0}
    for number in range(count):
        bad = tmp_path / f"{number}-{kind}"
        bad.write_bytes(mutated(content, number, generator))
        with limited(20):
            error = refusal(out=tmp_path / "o.mkv", **files | {role: str(bad)})
        outcomes["refused" if error else "made"] += 1
        code = 1 if isinstance(error, OutOfMemory) else 2
        assert error is None or (error.exit_code == code and "\n" not in str(error)), error
    assert outcomes["refused"] > count / 10


def refusal(**files: object) -> MTAnimateError | None:
    try:
        mtanimate.animate(overwrite=True, end=0.1, crop="none", driving_crop="none", **files)
    except MTAnimateError as error:
        return error
    return None


def mutated(content: bytes, number: int, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    if number % 3 == 0:
        return bytes(changed[: generator.integers(len(changed))])
    places = generator.integers(len(changed) if number % 3 == 1 else min(200, len(changed)), size=1 + number % 20)
    for place in places:
        changed[place] = generator.integers(256)
    return bytes(changed)


class limited:
    """Fails after so many seconds: nothing hangs."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._late)
            signal.alarm(self.seconds)

    def __exit__(self, *error: object) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)

    def _late(self, *signal: object) -> None:
        raise AssertionError(f"no answer after {self.seconds} s")
