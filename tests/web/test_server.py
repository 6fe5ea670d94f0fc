"""The page's server without a browser: what it refuses, its API, its line and its private folder."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import pytest
from pages import serving
from typer.testing import CliRunner

from mtanimate.cli import app
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.web.running import Done, Limits, Room, Runner, Waiting, Working

if find_spec("gradio") is None:  # importing it takes seconds, which belong to these tests alone
    pytest.skip("needs the extra web", allow_module_level=True)
httpx = pytest.importorskip("httpx")


def uploaded(page, file):
    """A file of the page's, as a request names it."""
    with file.open("rb") as opened:
        path = httpx.post(f"{page.address}/gradio_api/upload", files={"files": (file.name, opened)}).json()[0]
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def ask(page, photo, driving):
    """The answer to a request for an animation."""
    values = [
        "largest",
        0,
        0,
        1,
        0,
        "relative",
        True,
        False,
        "move",
        "mp4",
        "auto",
        False,
        True,
        "auto",
        "auto",
        "auto",
        "best",
    ]
    return httpx.post(f"{page.address}/gradio_api/call/animate", json={"data": [photo, driving, *values]})


# The gate


def test_files_of_the_server_cannot_be_named(page, media):
    driving = uploaded(page, media / "talk.mp4")
    for path in (str(media / "face.png"), "../face.png", "/files/../face.png", "http://127.0.0.1:9/face.png", None, 3):
        answer = ask(page, {"path": path, "meta": {"_type": "gradio.FileData"}}, driving)
        assert answer.status_code == 400, path
        assert str(media) not in answer.text
    assert ask(page, uploaded(page, media / "face.png"), driving).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/hostname",
        "/gradio_api/file=/files/../../etc/hostname",
        "/gradio_api/file=%2ffiles%2f..%2f..%2fetc%2fhostname",
        "/gradio_api/file=http://127.0.0.1:9/",
        "/gradio_api/proxy=http://127.0.0.1:9/",
        "/gradio_api/run/predict",
        "/monitoring",
    ],
)
def test_other_doors_are_closed(page, path):
    assert httpx.get(page.address + path).status_code == 404


def test_other_names_of_the_server_are_refused(page):
    assert httpx.get(page.address, headers={"host": "elsewhere.example"}).status_code == 421
    assert httpx.get(page.address, headers={"host": "localhost:1"}).status_code == 200


def test_no_answer_names_the_private_folder_or_loads_from_elsewhere(page, media):
    answers = [
        httpx.get(page.address),
        httpx.get(f"{page.address}/config"),
        httpx.get(f"{page.address}/gradio_api/info"),
    ]
    with (media / "face.png").open("rb") as file:
        answers.append(httpx.post(f"{page.address}/gradio_api/upload", files={"files": ("face.png", file)}))
    for answer in answers:
        assert answer.status_code == 200
        assert str(page.private) not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert (page.private.stat().st_mode & 0o77) == 0 or os.name == "nt"


def test_an_upload_without_a_length_is_cut_off_at_the_limit(page):
    boundary = "x"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'.encode()

    def parts():
        yield head
        for _ in range(64):
            yield bytes(1 << 17)

    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    assert httpx.post(f"{page.address}/gradio_api/upload", content=parts(), headers=kind).status_code == 413


# The API


def test_gradio_client(page, media, tmp_path):
    client_of = pytest.importorskip("gradio_client")
    client = client_of.Client(page.address, verbose=False, download_files=str(tmp_path))
    photo, driving = client_of.handle_file(media / "face.png"), client_of.handle_file(media / "talk.mp4")
    (result,), report = client.predict(photo=photo, driving=driving, end=0.4, api_name="/animate")
    assert report["results"][0]["about"].startswith("10 frames")
    assert result.endswith("result.mp4")
    (motion,), _ = client.predict(photo=photo, driving=driving, api_name="/keep_motion")
    files, report = client.predict(
        motion=client_of.handle_file(motion), photos=[photo, photo], api_name="/apply_motion"
    )
    assert (len(files), len(report["results"])) == (2, 2)
    (figure,), _ = client.predict(photo=photo, driving=driving, what="attention", api_name="/look_inside")
    assert figure.endswith(".png")
    with pytest.raises(Exception, match="--crop 1,2,3"):
        client.predict(photo=photo, driving=driving, crop="1,2,3", api_name="/animate")


# The line and the folder


@pytest.fixture
def room():
    room = Room(1.0)
    yield room
    room.close()
    assert not room.folder.exists()


def busy(until):
    """Work that goes on until the event is set."""

    def work(progress):
        count = 0
        while not until.wait(0.01):
            count += 1
            progress(count, 1000, "working")
        return count

    return work


def next_of(steps, kind):
    return next(step for step in steps if isinstance(step, kind))


def test_runs_take_turns_and_too_many_are_refused(room):
    runner, over = Runner(None, room, Limits(waiting=1), None), threading.Event()
    first, second, third = (runner.follow(busy(over), {"working": 1}) for _ in range(3))
    assert next_of(first, Working).stage == "working"
    assert next(second) == Waiting(1)
    with pytest.raises(MTAnimateError, match="waiting"):
        next(third)
    second.close()  # leaves the line
    fourth = runner.follow(busy(over), {"working": 1})
    assert next(fourth) == Waiting(1)
    over.set()
    assert isinstance(list(first)[-1], Done)
    assert isinstance(list(fourth)[-1], Done)


def test_a_run_that_is_given_up_stops_before_the_next_begins(room):
    runner, never = Runner(None, room, Limits(), None), threading.Event()
    running = set()

    def work(progress):
        assert not running
        running.add(1)
        try:
            return busy(never)(progress)
        finally:
            time.sleep(0.2)
            running.clear()

    first = runner.follow(work, {"working": 1})
    next_of(first, Working)
    first.close()
    second = runner.follow(lambda progress: sorted(running), {"working": 1})
    assert list(second)[-1] == Done([])


def test_what_the_work_raises_comes_out_and_the_line_goes_on(room):
    runner = Runner(None, room, Limits(), None)

    def broken(progress):
        with room.new_folder() as folder:
            (folder / "half").write_text("")
            raise InputError(f"{folder / 'face.png'} is broken")

    with pytest.raises(InputError) as caught:
        list(runner.follow(broken, {"working": 1}))
    assert runner.words(caught.value) == "face.png is broken"
    assert not list(room.folder.iterdir())
    assert list(runner.follow(lambda progress: 7, {"working": 1}))[-1] == Done(7)


def test_old_files_are_removed_and_new_ones_stay(room):
    for name, age in (("old", 3700), ("new", 0)):
        with room.new_folder() as folder:
            (folder / name).write_text("")
        past = time.time() - age
        for path in (folder / name, folder):
            os.utime(path, (past, past))
    room.sweep()
    assert [path.name for path in room.folder.rglob("*") if path.is_file()] == ["new"]


# The command


def web(*arguments):
    """The command, in this process."""
    done = CliRunner().invoke(app, ["web", *map(str, arguments)])
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.count("\n") == 1
    return done


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--host", "0.0.0.0"], "--auth"),
        (["--host", "0.0.0.0", "--auth", "ann"], "--auth"),
        (["--auth", "ann:short"], "--auth"),
        (["--host", "no such host"], "--host"),
        (["--checkpoint", "no-such"], "no-such"),
        (["--credentials", "no.pem", "no.pem"], "no.pem"),
    ],
)
def test_wrong_options_are_one_line(arguments, named):
    if "--credentials" in arguments:
        pytest.importorskip("c2pa", reason="needs the extra c2pa")
    refused = web("--port", 0, *arguments)
    assert refused.exit_code == 2
    assert named in refused.stderr
    assert "short" not in refused.stderr


def test_a_port_in_use_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused = web("--port", other.getsockname()[1])
    assert refused.exit_code == 1
    assert "--port" in refused.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_sigterm_leaves_nothing(media, tmp_path):
    arguments = [sys.executable, "-m", "mtanimate", "web", "--port", "0", "--checkpoint", media / "tiny.safetensors"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    server = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)
    line = next(line for line in server.stderr if "http://" in line)
    address = line.partition("http://")[2].split()[0]
    with (media / "face.png").open("rb") as file:
        assert httpx.post(f"http://{address}/gradio_api/upload", files={"files": ("face.png", file)}).status_code == 200
    (private,) = tmp_path.glob("mtanimate-web-*")
    assert list(private.rglob("face.png"))
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 143
    assert "Traceback" not in said
    assert not private.exists()


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    refused = web("--port", 0)
    assert refused.exit_code == 2
    assert "mtanimate[web]" in refused.stderr


def test_a_server_with_a_password_answers_nothing_without_it(media):
    with serving(media, auth=("ann", "correct horse")) as page:
        assert httpx.get(f"{page.address}/config").status_code == 401
        assert ask(page, None, None).status_code == 401
        assert httpx.post(f"{page.address}/gradio_api/upload", files={"files": ("a", b"a")}).status_code == 401
