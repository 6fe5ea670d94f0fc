"""The field's CSV files: what a line means, and what is said about one that means nothing."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.data.planning import ListedClip, read_metadata
from mtanimate.errors import InputError
from mtanimate.faces.detection import Box

HEADER = "video_id,start,end,bbox,fps,width,height,partition,person_id"
NTSC = Fraction(30000, 1001)


def table(tmp_path, *lines, header=HEADER, encoding="utf-8"):
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
    return path


def row(start=0, end=10, box=Box(0, 0, 10, 10), fps=Fraction(25), width=1280, height=720):
    return ListedClip("v", "v#0#10", start, end, box, fps, width, height, "train")


def test_a_line_of_each_list_of_the_field(tmp_path):
    (vox,) = read_metadata(table(tmp_path, "WMh3ye5tBsE,3657,3994,624-48-1018-553,25,1280,720,train,id10005"))
    assert vox.video == "WMh3ye5tBsE"
    assert vox.name == "id10005#WMh3ye5tBsE#003657#003994"
    assert (vox.start, vox.end, vox.fps) == (3657, 3994, 25)
    assert vox.box == Box(624, 48, 1018, 553)
    assert (vox.width, vox.height, vox.partition) == (1280, 720, "train")

    taichi = "video_id,start,end,bbox,fps,width,height"
    (plain,) = read_metadata(table(tmp_path, "u6rJiF-gPx8,80,300,118-82-508-472,29.97,640,480", header=taichi))
    assert (plain.name, plain.partition, plain.fps) == ("u6rJiF-gPx8#000080#000300", "train", Fraction("29.97"))

    older = "fps,width,height,bbox,start,end,video_id,partition,more"
    (person,) = read_metadata(table(tmp_path, "25,640,360,1-2-30-40,5,9,na8-Q#id10003,test,x,y", header=older))
    assert (person.video, person.name, person.partition) == ("na8-Q", "id10003#na8-Q#000005#000009", "test")


def test_a_spreadsheets_file_is_read(tmp_path):
    """With a byte order mark, quotes, spaces and an empty line."""
    path = table(tmp_path, '"v" , 1, 9 ,"1-2-3-4",25,64,48,,', "", encoding="utf-8-sig")
    assert [(found.video, found.partition) for found in read_metadata(path)] == [("v", "train")]


GOOD = {
    "video_id": "v",
    "start": "1",
    "end": "9",
    "bbox": "1-2-30-40",
    "fps": "25",
    "width": "64",
    "height": "48",
    "partition": "test",
}


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("video_id", ""),
        ("video_id", "#id1"),
        ("start", "x"),
        ("start", "-1"),
        ("start", "1.5"),
        ("end", "1"),
        ("end", ""),
        ("bbox", "1-2-30"),
        ("bbox", "1,2,3,4"),
        ("bbox", "30-2-1-40"),
        ("bbox", "1-40-30-40"),
        ("bbox", "nan"),
        ("fps", "0"),
        ("fps", "inf"),
        ("fps", "1/0"),
        ("width", "0"),
        ("height", "tall"),
        ("partition", "valid"),
    ],
)
def test_a_cell_that_means_nothing_is_named_with_its_line(tmp_path, column, cell):
    cells = GOOD | {column: f'"{cell}"'}
    path = table(tmp_path, ",".join(GOOD.values()), ",".join(cells.values()), header=",".join(GOOD))
    with pytest.raises(InputError, match="line 3: ") as caught:
        read_metadata(path)
    assert str(path) in str(caught.value)
    assert column in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_short_line_is_named(tmp_path):
    with pytest.raises(InputError, match="line 2: "):
        read_metadata(table(tmp_path, "v,1,9"))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no column bbox, fps"):
        read_metadata(table(tmp_path, "v,1,9,64,48", header="video_id,start,end,width,height"))
    with pytest.raises(InputError, match="lists no clips"):
        read_metadata(table(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        read_metadata(tmp_path / "none.csv")
    (tmp_path / "video.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not a CSV file"):
        read_metadata(tmp_path / "video.csv")


@pytest.mark.parametrize(
    ("written", "real", "span"),
    [
        ("25", Fraction(25), (100, 200)),
        ("25", Fraction(50), (200, 400)),
        ("50", Fraction(25), (50, 100)),
        ("25", Fraction(30), (120, 240)),
        ("30", Fraction(25), (84, 167)),  # frame i is in it if start <= 30 / 25 i < end
        ("29.97", Fraction(60000, 1001), (200, 400)),
    ],
)
def test_frames_are_those_of_the_same_time(written, real, span):
    assert row(100, 200, fps=Fraction(written)).span(real) == span


@pytest.mark.parametrize(
    ("written", "real"), [("29.97", NTSC), ("23.97", Fraction(24000, 1001)), ("15.79", Fraction(15787, 1000))]
)
def test_a_rate_that_was_rounded_loses_no_frame(written, real):
    assert row(20_000, 30_000, fps=Fraction(written)).span(real) == (20_000, 30_000)


@given(st.integers(0, 10**5), st.integers(1, 10**4), st.integers(1, 60), st.integers(1, 60))
def test_spans_of_any_rates(start, length, written, real):
    first, end = row(start, start + length, fps=Fraction(written)).span(Fraction(real))
    assert 0 <= first <= end
    assert abs(Fraction(first, real) - Fraction(start, written)) <= Fraction(1, real)
    assert abs(Fraction(end, real) - Fraction(start + length, written)) <= Fraction(1, real)


BOXES = st.tuples(st.integers(0, 1200), st.integers(0, 700), st.integers(1, 1300), st.integers(1, 900)).map(
    lambda b: Box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(BOXES, st.sampled_from([(1280, 720), (640, 360), (320, 240), (720, 1280)]))
def test_squares_of_any_boxes(box, size):
    width, height = size
    square = row(box=box).square(width, height)
    across, down = width / 1280, height / 720
    inside = Box(box.left * across, box.top * down, min(box.right, 1280) * across, min(box.bottom, 720) * down)
    if box.left >= 1280 or box.top >= 720:
        assert square is None
        return
    assert 0 <= square.x <= square.x + square.side <= width
    assert 0 <= square.y <= square.y + square.side <= height
    assert square.side == max(1, min(round(max(inside.width, inside.height)), width, height))
    x, y = inside.centre
    assert square.x - 1 <= x <= square.x + square.side + 1
    assert square.y - 1 <= y <= square.y + square.side + 1
    if max(inside.width, inside.height) <= min(width, height):  # then nothing of the box is lost
        assert square.x <= inside.left + 1
        assert square.y <= inside.top + 1
        assert square.x + square.side >= inside.right - 1
        assert square.y + square.side >= inside.bottom - 1


def test_the_shorter_side_is_enlarged_about_the_same_centre():
    square = row(box=Box(600, 100, 800, 500)).square(1280, 720)
    assert (square.x, square.y, square.side) == (500, 100, 400)
    assert row(box=Box(0, 100, 200, 500)).square(1280, 720).x == 0
    assert row(box=Box(2000, 0, 2100, 50)).square(1280, 720) is None
