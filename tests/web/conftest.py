"""A page with a tiny network, and a browser."""

from pathlib import Path

import numpy as np
import pytest
from drawn_face import scene
from pages import CHROMIUM, FLAGS, serving, write_video
from tiny import CONFIG, moving_square, tiny_animator

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.video import write_image


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """face.png, two "faces".png, talk.mp4 (20 frames, with sound), long.mp4 (2000 frames), tiny.safetensors."""
    folder = tmp_path_factory.mktemp("web")
    write_image(folder / "face.png", scene(160, 160, (10, 10, 140)))
    write_image(folder / 'two "faces".png', scene(420, 200, (10, 20, 160), (230, 20, 160)))
    for name, count, times in (("talk", 20, 1), ("long", 50, 40)):
        write_video(folder / f"{name}.mp4", np.concatenate([moving_square(count, 0.3)] * times))
    write_checkpoint(folder / "tiny.safetensors", tiny_animator(), CONFIG, {"steps": 0})
    return folder


@pytest.fixture(scope="session")
def page(media):
    with serving(media, megabytes=2, seconds=90, waiting=1) as page:
        yield page


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser: {CHROMIUM} (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
