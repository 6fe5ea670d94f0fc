"""Small pictures and pieces of HTML that the page is made of."""

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from mtanimate.faces.detection import Box
from mtanimate.video.footage import Footage
from mtanimate.web.running import Waiting, Working, seconds_of
from mtanimate.web.work import Made

_PREVIEW = 640  # pixels of a photo's longer side
_FRAMES, _FRAME_HEIGHT = 10, 72  # of a film strip


def photo_with_faces(picture: np.ndarray, boxes: Sequence[Box]) -> str:
    """A photo with a numbered button around each face, which chooses it."""
    height, width = picture.shape[:2]
    marks = "".join(
        f'<button type="button" class="face" data-face="{number}" aria-label="Animate face {number} from the left" '
        f'style="left:{_share(box.left, width)};top:{_share(box.top, height)};'
        f'width:{_share(box.width, width)};height:{_share(box.height, height)}"><span>{number}</span></button>'
        for number, box in enumerate(boxes, 1)
    )
    picture_url = _jpeg(picture, _PREVIEW)
    count = len(boxes)
    if count:
        said = "One face found." if count == 1 else f"{count} faces found. Choose one, here or below."
    else:
        said = "No face found: the middle of the photo will be animated. A face that looks at the camera works best."
    return (
        f'<figure class="faces"><div><img src="{picture_url}" alt="The photo, with the faces that were found">{marks}'
        f"</div><figcaption>{said}</figcaption></figure>"
    )


def film_strip(footage: Footage) -> str:
    """Some frames of a video in a row, over which the chosen part is shown."""
    numbers = np.linspace(0, footage.frame_count - 1, min(_FRAMES, footage.frame_count)).round().astype(int)
    frames = []
    for frame in footage.frames(numbers.tolist()):
        small = Image.fromarray(frame)
        small.thumbnail((10 * _FRAME_HEIGHT, _FRAME_HEIGHT))
        frames.append(np.asarray(small))
    seconds = seconds_of(footage)
    return (
        f'<figure class="strip"><div data-seconds="{seconds:.3f}"><img src="{_jpeg(np.concatenate(frames, axis=1))}" '
        f'alt="Frames of the driving video"><span class="cut start"></span><span class="cut end"></span></div>'
        f"<figcaption>{seconds:.1f} s, {footage.frame_count} frames</figcaption></figure>"
    )


def progress(step: Waiting | Working | None) -> str:
    """How far a run is, with a bar."""
    unknown = '<progress aria-label="Progress"></progress>'
    if step is None:
        return _status(unknown, "Getting ready.")
    if isinstance(step, Waiting):
        before = "one run is" if step.place == 1 else f"{step.place} runs are"
        return _status(unknown, f"You are number {step.place} in the queue: {before} before yours.")
    bar = f'<progress aria-label="Progress" max="{max(step.total, 1)}" value="{step.done}"></progress>'
    left = f", about {step.left:.0f} s left" if step.left else ""
    return _status(bar, f"{step.stage.capitalize()}: {step.done} of {step.total}{left}.")


def said(line: str) -> str:
    return _status("", line)


def failed(line: str) -> str:
    return f'<div class="status failed" role="alert">{html.escape(line)}</div>'


def side_by_side(made: Made, address: str, driving: str, start: float) -> str:
    """A result beside the driving video, which plays in step with it.

    Args:
        address: Of the result.
        driving: The address of the driving video.
        start: The second of the driving video in which the result begins.
    """
    shown = _shown(made.file, address, "The result")
    other = (
        f'<figure><video src="{driving}" class="follows" data-start="{start:g}" muted playsinline preload="auto" '
        'aria-label="The driving video, in step with the result"></video>'
        "<figcaption>Driving video</figcaption></figure>"
    )
    return (
        f'<div class="pair"><figure>{shown}<figcaption>Result</figcaption></figure>{other}</div>'
        f"{_download(made, address)}{_warnings(made.warnings)}"
    )


def alone(made: Made, address: str) -> str:
    """A result by itself."""
    shown = _shown(made.file, address, made.line)
    return f'<figure class="alone">{shown}</figure>{_download(made, address)}{_warnings(made.warnings)}'


def kept(made: Made, address: str) -> str:
    """A file to download."""
    return f"{_download(made, address)}{_warnings(made.warnings)}"


def several(results: list[tuple[Made, str] | str]) -> str:
    """Many results, and lines about those that failed."""
    cells = [
        f'<li class="failed" role="alert">{html.escape(result)}</li>'
        if isinstance(result, str)
        else f"<li>{alone(*result)}</li>"
        for result in results
    ]
    return f'<ul class="several">{"".join(cells)}</ul>'


def _shown(file: Path, address: str, words: str) -> str:
    if file.suffix in (".png", ".gif"):
        return f'<a href="{address}" target="_blank"><img src="{address}" alt="{html.escape(words)}"></a>'
    how = 'class="result" controls autoplay loop playsinline'
    return f'<video src="{address}" {how} aria-label="{html.escape(words)}"></video>'


def _download(made: Made, address: str) -> str:
    name = html.escape(made.file.name)
    link = f'<a class="download" href="{address}" download="{name}">Download {name}</a>'
    return f'<p class="made">{link} {html.escape(made.line)}</p>'


def _warnings(lines: list[str]) -> str:
    items = "".join(f"<li>{html.escape(line[:1].upper() + line[1:])}.</li>" for line in lines)
    return f'<div class="warnings"><h2>What to know about this result</h2><ul>{items}</ul></div>' if items else ""


def _status(bar: str, line: str) -> str:
    return f'<div class="status" role="status">{bar}<p>{html.escape(line)}</p></div>'


def _jpeg(picture: np.ndarray, largest: int | None = None) -> str:
    """As the address of an image that holds it."""
    image = Image.fromarray(picture)
    if largest is not None:
        image.thumbnail((largest, largest))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def address_of(path: str) -> str:
    """Where the page finds a file, by its public path."""
    return f"gradio_api/file={quote(path)}"


def _share(part: float, whole: int) -> str:
    return f"{100 * part / whole:.2f}%"
