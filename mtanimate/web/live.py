"""The tab Live: frames of a visitor's camera, driven one by one as they come."""

import base64
import threading
import time
from collections import OrderedDict, deque
from io import BytesIO
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from mtanimate.animation.live import Follower
from mtanimate.animation.source import StillRenderer
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.faces.framing import frame_source
from mtanimate.inference.predictor import Predictor
from mtanimate.reading import check_pixels
from mtanimate.video.image import open_lazily, to_rgb
from mtanimate.web import pictures, work
from mtanimate.web.running import Runner

_EVERY = 0.1  # seconds between two frames that the browser sends
_MOST_PIXELS = 4_000_000  # of a frame
_MOST_VISITORS = 8  # whose faces are kept ready


class Live:
    """The tab, and for each visitor the source that follows the camera."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._guard = threading.Lock()

    def show(self, photo: Any) -> None:
        """Put the tab's controls on the page. photo: The one of the tab Animate."""
        gr.Markdown(
            "Your camera moves the photo of the tab Animate. Look straight at the camera when you start: that pose "
            "counts as rest. Nothing is recorded or kept."
        )
        with gr.Row():
            camera: Any = gr.Image(
                label="Camera",
                sources=["webcam"],
                streaming=True,
                type="numpy",
                buttons=[],
                webcam_options=gr.WebcamOptions(
                    mirror=False, constraints={"video": {"width": {"ideal": 320}, "height": {"ideal": 240}}}
                ),
                elem_id="camera",
            )
            view = gr.HTML(elem_id="live-view")
        camera.preprocess = _decoded
        again = gr.Button("This pose is rest", elem_id="rest")
        camera.stream(
            self._frame,
            [photo, camera],
            view,
            stream_every=_EVERY,
            time_limit=600,
            concurrency_limit=4,
            show_progress="hidden",
            api_visibility="private",
        )
        again.click(self._rest, None, None, show_progress="hidden", api_visibility="private")

    def _frame(self, photo: str | None, frame: np.ndarray | None, request: gr.Request) -> Any:
        if frame is None:
            return gr.skip()
        if not self._runner.network.acquire(blocking=False):
            return gr.skip()
        try:
            visitor = self._visitor(str(request.session_hash), photo)
            return visitor.follow(frame)
        except Exception as error:
            return pictures.failed(self._runner.words(error))
        finally:
            self._runner.network.release()

    def _rest(self, request: gr.Request) -> None:
        visitor = self._visitors.get(str(request.session_hash))
        if visitor is not None:
            visitor.follower.set_reference()

    def _visitor(self, session: str, photo: str | None) -> "Visitor":
        """Raises InputError where there is no photo, or it cannot be read."""
        with self._guard:
            known = self._visitors.pop(session, None)
            if known is None or known.photo != photo:
                known = Visitor(self._runner, photo)
            self._visitors[session] = known
            while len(self._visitors) > _MOST_VISITORS:
                self._visitors.popitem(last=False)
            return known


def _decoded(payload: Any) -> np.ndarray | None:
    """A frame as the browser sends it, in a data address: uint8 RGB (H, W, 3). Raises InputError for anything else."""
    _, comma, content = (getattr(payload, "url", None) or "").partition(",")
    if not comma:
        return None
    try:
        with open_lazily(BytesIO(base64.b64decode(content))) as picture:
            check_pixels("the camera's picture", *picture.size, _MOST_PIXELS)
            return to_rgb(picture)
    except (OSError, ValueError) as error:
        raise InputError("the camera's picture cannot be read") from error


class Visitor:
    """A photo that follows one camera."""

    def __init__(self, runner: Runner, photo: str | None) -> None:
        if photo is None:
            raise InputError("the photo is missing: upload one in the tab Animate")
        self.photo = photo
        picture = work.read_photo(runner, photo)
        predictor = Predictor.of(runner.loaded, lambda line: None)
        squares = frame_source(picture, "auto", "largest", lambda line: None)
        self._resolution = predictor.resolution  # larger pictures would take longer on their way, too
        renderer = StillRenderer(predictor, picture, squares, paste=False, lock=False, largest=self._resolution)
        self.follower = Follower(predictor, renderer, "relative", True, 1.0)
        self._square: Square | None = None
        self._spent: deque[float] = deque(maxlen=50)

    def follow(self, frame: np.ndarray) -> str:
        """A frame of the camera, uint8 RGB (H, W, 3), to HTML with the result."""
        began = time.monotonic()
        if self._square is None:
            (self._square,) = frame_source(frame, "auto", "largest", lambda line: None, "camera", "--driving-crop")
        result = self.follower.follow(resize_frames(self._square.cut(frame[None]), self._resolution))
        buffer = BytesIO()
        Image.fromarray(result).save(buffer, "JPEG", quality=85)
        self._spent.append(time.monotonic() - began)
        milliseconds = 1000 * sum(self._spent) / len(self._spent)
        return (
            f'<figure class="live"><img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}" '
            f'alt="The photo, as your camera moves it"><figcaption>{milliseconds:.0f} ms a frame on the server'
            "</figcaption></figure>"
        )
