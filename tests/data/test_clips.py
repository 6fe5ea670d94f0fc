"""What is found in folders: every kind of video, once, and what is left out is said."""

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtanimate.data.clips import find_clips, left_out, look_through
from mtanimate.video.ffmpeg import executable

FOLDERS = st.sampled_from([".", "a", "a/b", "c"])


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


CONTAINERS = ["3gp", "asf", "avi", "flv", "m2ts", "mkv", "mov", "mp4", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm"]


@pytest.mark.parametrize("ending", [*CONTAINERS, "qt", "wmv", "m2t", "m4v"])
def test_every_container_is_seen_and_read(tmp_path, ending):
    """As cameras name their files: A.MTS."""
    formats = {"qt": "mov", "mts": "mpegts", "m2t": "mpegts", "wmv": "asf", "m4v": "mp4"}
    codec = {"flv": "flv", "ogv": "libtheora", "webm": "libvpx", "mpg": "mpeg2video", "mxf": "mpeg2video"}
    codec |= {"vob": "mpeg2video", "wmv": "wmv2", "asf": "wmv2"}
    command = [executable(), "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=1"]
    command += ["-c:v", codec.get(ending, "libx264"), "-pix_fmt", "yuv420p"]
    kind = ["-f", formats[ending]] if ending in formats else []
    subprocess.run([*command, *kind, tmp_path / f"A.{ending.upper()}"], check=True)
    (clip,) = find_clips(tmp_path)
    assert (clip.path.suffix, clip.open().frame_count) == (f".{ending.upper()}", 25)


def test_what_is_no_clip_is_counted_and_named(tmp_path):
    touch(tmp_path, "a.mp4", "x/1.png", "x/2.png", "y/b.mov", "y/c.png", ".hidden", "x/.d.txt")
    assert look_through(tmp_path)[0] == [tmp_path / "a.mp4", tmp_path / "x", tmp_path / "y" / "b.mov"]
    touch(tmp_path, "n.txt", "y/m.TXT", "x/k")
    (line,) = left_out(tmp_path, look_through(tmp_path)[1])
    assert all(words in line for words in ("2 .txt (n.txt)", "1 .png (y/c.png)", "1 no ending (x/k)"))
    assert left_out(tmp_path, []) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=st.lists(st.tuples(FOLDERS, FOLDERS)))
def test_links_multiply_no_clips(tmp_path_factory, links):
    """Whatever leads where: each folder's clips come once, by the way without links."""
    top = tmp_path_factory.mktemp("linked")
    touch(top, "0.mp4", "a/1.mp4", "a/b/2.mp4", "c/3.mp4")
    for number, (place, target) in enumerate(links):
        (top / place / f"link{number}").symlink_to(top / target)
    assert [str(clip.path.relative_to(top)) for clip in find_clips(top)] == ["0.mp4", "a/1.mp4", "a/b/2.mp4", "c/3.mp4"]


def test_a_linked_folder_is_looked_into(tmp_path):
    touch(tmp_path, "elsewhere/a.mp4", "data/b.mp4")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert [clip.path.name for clip in find_clips(tmp_path / "data")] == ["b.mp4", "a.mp4"]
