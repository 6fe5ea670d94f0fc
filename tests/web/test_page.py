"""The page in a real browser: what a visitor does, and what goes wrong."""

import time

import pytest
from pages import PATIENCE, ffmpeg, serving
from PIL import Image

from mtanimate.video import VideoReader, read_image


class Visitor:
    """Someone with a browser. log: What the browser asked for and complained about."""

    def __init__(self, browser, address, **how):
        self.context = browser.new_context(**how)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.asked, self.complaints = [], []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(address)

    def give(self, where, file):
        self.tab.set_input_files(f"#{where} input[type=file]", file)

    def photo(self, file):
        self.give("photo", file)
        self.tab.wait_for_selector(".faces img")

    def driving(self, file):
        self.give("driving", file)
        self.tab.wait_for_selector(".strip img")

    def clear(self, where):
        labels = ("Remove Image", "Clear")
        self.tab.locator(", ".join(f"#{where} button[aria-label='{label}']" for label in labels)).first.click()

    def press_animate(self):
        self.tab.click("button#animate")

    def says(self, words, where="#status"):
        self.tab.wait_for_selector(f'{where}:has-text("{words}")')
        return self.tab.inner_text(where)

    def result(self, file):
        """The result, downloaded by its link."""
        self.tab.wait_for_selector("#result video.result")
        with self.tab.expect_download() as download:
            self.tab.click("#result a.download")
        download.value.save_as(file)
        return VideoReader(file)


@pytest.fixture
def visitor(browser, page):
    visitor = Visitor(browser, page.address)
    yield visitor
    visitor.context.close()


def test_photo_video_button(visitor, page, media, tmp_path):
    visitor.photo(media / "face.png")
    visitor.driving(media / "talk.mp4")
    visitor.press_animate()
    result = visitor.result(tmp_path / "result.mp4")
    assert (result.frame_count, result.has_audio) == (20, True)
    assert visitor.complaints == []
    outside = [url for url in visitor.asked if not url.startswith((page.address, "data:", "blob:"))]
    assert outside == []
    seen = visitor.tab.content() + " ".join(visitor.asked)
    assert str(page.private) not in seen
    assert str(page.private.parent) + "/" not in seen


def test_one_of_several_faces_is_chosen_on_the_photo(visitor, media, tmp_path):
    visitor.photo(media / 'two "faces".png')
    faces = visitor.tab.locator(".faces .face")
    assert faces.count() == 2
    assert "rgba(0, 0, 0, 0)" in faces.first.evaluate("face => getComputedStyle(face).backgroundColor")
    visitor.driving(media / "talk.mp4")
    visitor.tab.click(".faces .face >> nth=1")
    assert visitor.tab.locator('#face input[value="2"]').is_checked()
    visitor.press_animate()
    result = visitor.result(tmp_path / "result.mp4")
    assert (result.width, result.height) == (420, 200)
    photo = read_image(media / 'two "faces".png').astype(int)
    changed = abs(result.frames([10])[0] - photo).max(axis=(0, 2))
    assert changed[240:].max() > 2 * changed[:180].max()


def test_start_and_end_cut_the_video(visitor, media, tmp_path):
    visitor.photo(media / "face.png")
    visitor.driving(media / "talk.mp4")
    for name, value in (("start", "0.2"), ("end", "0.6")):
        visitor.tab.fill(f"#{name} input[type=number]", value)
        visitor.tab.press(f"#{name} input[type=number]", "Tab")
    visitor.press_animate()
    assert visitor.result(tmp_path / "result.mp4").frame_count == 10


def wrong_files(folder):
    """By where it is given: files, each with what the line about it has to name."""
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    (folder / "text.png").write_text("no picture")
    (folder / "text.mp4").write_text("no video")
    return {"photo": ["huge.png", "text.png"], "driving": ["text.mp4", "cut.mp4", "minutes.mp4"]}


def test_wrong_files_are_one_line_and_the_server_goes_on(visitor, media, tmp_path, page):
    wrong = wrong_files(tmp_path)
    whole = (media / "talk.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    minutes = tmp_path / "minutes.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=size=64x64:rate=1:duration=95", minutes)
    for place, shown in (("photo", "#faces"), ("driving", "#strip")):
        for name in wrong[place]:
            visitor.give(place, tmp_path / name)
            line = visitor.says(name, f"{shown} .failed")
            assert "\n" not in line
            assert str(page.private.parent) not in line
            remove = visitor.tab.locator(
                f"#{place} button[aria-label='Remove Image'], #{place} button[aria-label='Clear']"
            )
            remove.first.click()
            visitor.tab.wait_for_selector(f"{shown} .failed", state="detached")
    visitor.press_animate()
    assert "\n" not in visitor.says("missing")
    visitor.photo(media / "face.png")
    visitor.driving(media / "talk.mp4")
    visitor.press_animate()
    assert visitor.result(tmp_path / "result.mp4").frame_count == 20


def test_an_upload_that_is_too_large_is_refused(visitor, page, tmp_path):
    (tmp_path / "large.mp4").write_bytes(bytes(3 << 20))
    before = {path for path in page.private.rglob("*") if path.is_file()}
    visitor.give("driving", tmp_path / "large.mp4")
    visitor.tab.wait_for_selector('.toast-body:has-text("large.mp4")')
    assert {path for path in page.private.rglob("*") if path.is_file()} == before


def test_two_visitors_wait_for_each_other_and_a_third_is_told_to_come_back(browser, page, media, tmp_path):
    visitors = [Visitor(browser, page.address) for _ in range(3)]
    first, second, third = visitors
    for visitor, photo, video in zip(
        visitors, ("face.png", 'two "faces".png', "face.png"), ("long", "talk", "talk"), strict=True
    ):
        visitor.photo(media / photo)
        visitor.driving(media / f"{video}.mp4")
    first.press_animate()
    first.says("of 2000")
    second.press_animate()
    second.says("number 1 in the queue")
    third.press_animate()
    third.says("try again")
    first.tab.click("#cancel")
    first.says("Cancelled")
    assert second.result(tmp_path / "second.mp4").width == 420
    first.clear("driving")
    first.driving(media / "talk.mp4")
    first.press_animate()
    assert first.result(tmp_path / "first.mp4").width == 160
    for visitor in visitors:
        visitor.context.close()


def test_a_tab_that_is_closed_ends_its_run_and_leaves_no_file(browser, page, media):
    leaving, staying = Visitor(browser, page.address), Visitor(browser, page.address)
    for visitor, video in ((leaving, "long.mp4"), (staying, "talk.mp4")):
        visitor.photo(media / "face.png")
        visitor.driving(media / video)
    made = set(page.private.rglob("result.mp4"))
    leaving.press_animate()
    leaving.says("of 2000")
    leaving.context.close()
    staying.press_animate()
    staying.says("Done")
    assert len(set(page.private.rglob("result.mp4")) - made) == 1
    assert all(any(folder.iterdir()) for folder in page.private.iterdir() if folder.is_dir())
    staying.context.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, page, media):
    phone = Visitor(browser, page.address, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    phone.photo(media / "face.png")
    phone.driving(media / "talk.mp4")
    phone.tab.tap("button#animate")
    phone.says("Done")
    for tab in ("Animate", "Look inside", "Performances", "Live"):
        phone.tab.get_by_role("tab", name=tab).tap()
        assert phone.tab.evaluate("document.documentElement.scrollWidth") <= 390, tab
    phone.context.close()


def test_keyboard_alone(visitor):
    tab = visitor.tab
    tab.wait_for_selector("#example-photo")

    def go_to(wanted):
        for _ in range(60):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.id") == wanted:
                return
        raise AssertionError(f"the keyboard does not reach {wanted}")

    go_to("example-photo")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".faces img")
    go_to("example-video")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".strip img")
    go_to("animate")
    tab.keyboard.press("Space")
    visitor.says("Done")
    tab.wait_for_selector("#result a.download")


def test_look_inside_and_performances(visitor, media, tmp_path):
    visitor.photo(media / "face.png")
    visitor.driving(media / "talk.mp4")
    visitor.tab.get_by_role("tab", name="Look inside").click()
    visitor.tab.click("#look")
    visitor.tab.wait_for_selector("#inside-result img")
    visitor.tab.get_by_role("tab", name="Performances").click()
    visitor.tab.click("#keep")
    visitor.tab.wait_for_selector("#kept a.download")
    with visitor.tab.expect_download() as download:
        visitor.tab.click("#kept a.download")
    download.value.save_as(tmp_path / "motion.safetensors")
    (tmp_path / "text.png").write_text("no picture")
    visitor.give("motion", tmp_path / "motion.safetensors")
    visitor.give("photos", [media / "face.png", tmp_path / "text.png"])
    visitor.tab.wait_for_selector("#photos :text('text')")
    visitor.tab.click("#apply")
    visitor.tab.wait_for_selector("#applied video")
    assert visitor.tab.locator("#applied video").count() == 1
    assert "text.png" in visitor.tab.inner_text("#applied li.failed")
    assert visitor.complaints == []


def test_live(browser, page, media):
    visitor = Visitor(browser, page.address, permissions=["camera"])
    visitor.photo(media / "face.png")
    visitor.tab.get_by_role("tab", name="Live").click()
    visitor.tab.get_by_text("Click to Access Webcam").click()
    visitor.tab.get_by_role("button", name="capture photo").click()
    visitor.tab.wait_for_selector(".live img")
    first = visitor.tab.inner_html("#live-view")
    until = time.monotonic() + PATIENCE / 1000
    while visitor.tab.inner_html("#live-view") == first:
        assert time.monotonic() < until
        visitor.tab.wait_for_timeout(100)
    visitor.context.close()


def test_a_password_is_asked_for(browser, media):
    with serving(media, auth=("ann", "correct horse")) as page:
        visitor = Visitor(browser, page.address)
        assert visitor.tab.locator("#photo").count() == 0
        for password in ("wrong horse", "correct horse"):
            visitor.tab.get_by_label("username").fill("ann")
            visitor.tab.get_by_label("password").fill(password)
            visitor.tab.get_by_role("button", name="Login").click()
            if password.startswith("wrong"):
                visitor.tab.get_by_text("Incorrect Credentials").wait_for()
        visitor.tab.wait_for_selector("#photo")
        visitor.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(browser, page, media, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    visitor = Visitor(browser, page.address, color_scheme=scheme)
    visitor.tab.wait_for_selector("footer")
    visitor.tab.wait_for_selector("#driving input[type=file]", state="attached")
    visitor.tab.wait_for_timeout(1000)
    found = {"empty": axe.run(visitor.tab)}
    visitor.photo(media / "face.png")
    visitor.driving(media / "talk.mp4")
    visitor.press_animate()
    visitor.says("Done")
    visitor.tab.get_by_role("button", name="More options").click()
    found["result"] = axe.run(visitor.tab)
    for tab in ("Look inside", "Performances", "Live"):
        visitor.tab.get_by_role("tab", name=tab).click()
        visitor.tab.wait_for_timeout(300)
        found[tab] = axe.run(visitor.tab)
    assert {name: result.generate_report() for name, result in found.items() if result.violations_count} == {}
    visitor.context.close()
