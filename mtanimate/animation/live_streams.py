"""`animate` where the driving video is a camera or standard input: no looking ahead, each frame as it comes."""

import timeit
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mtanimate.animation.live import LiveReport, LiveSink, LiveVideo, run_live
from mtanimate.animation.results import MARK, STANDARD_OUTPUT, check_result, codec_for, open_result
from mtanimate.animation.retargeting import AtRest
from mtanimate.animation.settings import Settings
from mtanimate.animation.source import Driven, describe_size, largest_side, open_renderer
from mtanimate.checkpoints.registry import file_given, published_name
from mtanimate.credentials import Credentials, Made, Sign
from mtanimate.devices import Precision
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.faces.framing import frame_source, parse_crop, parse_face
from mtanimate.inference.loading import load_network
from mtanimate.inference.predictor import Predictor
from mtanimate.models.animator import check_disentangles
from mtanimate.outputs import check_not_input, claim
from mtanimate.reading import MAX_PIXELS
from mtanimate.video import read_image
from mtanimate.video.streams import DrivingStream, check_stream
from mtanimate.video.window import Window

WINDOW = Path("window")
# Settings that need the whole motion before the first frame, or a file.
_NOT_LIVE = ("smooth", "start", "end", "compare", "track")


def animate_stream(
    source: str | Path,
    driving: str,
    out: str | Path,
    *,
    checkpoint: str = "default",
    device: str = "auto",
    precision: Precision = "auto",
    backend: str = "auto",
    batch_size: int | None = None,
    allow_code: bool = False,
    max_pixels: int = MAX_PIXELS,
    credentials: tuple[str | Path, str | Path] | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> LiveReport:
    """Animate a picture with a stream, until it ends.

    The reference frame is the first one, and its face says where the driving square is.

    Args:
        source: A picture.
        driving: `webcam:N`, or `-` for standard input.
        out: `window`, `-` for standard output (Matroska, or Y4M by the codec `raw`), or a video file.
        batch_size: Must be None: a stream is played frame by frame.
        **settings: Fields of `Settings`. Those that look ahead are refused.

    The other arguments are those of `mtanimate.animation.animate.animate`.

    Raises:
        InputError: A file or an option is wrong.
        MTAnimateError: Another run writes `out`.

    Also raises what `run_live` raises.
    """
    chosen = Settings(**settings | {"codec": codec_for(out, settings.get("codec"))})
    source, out = Path(source).expanduser(), Path(out).expanduser()
    with ExitStack() as stack:
        if out not in (WINDOW, STANDARD_OUTPUT):
            stack.enter_context(claim(out))
            check_not_input("--out", out, [source, file_given(checkpoint)])
        _check(chosen, out, overwrite)
        if batch_size is not None:
            raise InputError(
                f"--batch-size {batch_size} is for a driving video from a file: a stream plays as it comes"
            )
        signing = Credentials.read(*credentials) if credentials else None
        if signing:
            signing.check(out, chosen.codec)
        picture = read_image(source, log, max_pixels=max_pixels)
        squares = frame_source(picture, parse_crop(chosen.crop), parse_face(chosen.face), log)
        check_stream(driving)
        loaded = load_network(checkpoint, device, precision, backend, log, allow_code=allow_code)
        if chosen.mode == "avd":
            check_disentangles(loaded.config)
        predictor = Predictor.of(loaded, lambda line: log(f"warning: {line}"))
        locked = chosen.background == "lock"
        largest = largest_side(chosen.resolution, predictor)
        if chosen.resolution == "auto":
            largest = quick_side(predictor, picture, squares, largest, chosen.pasted)
        renderer = open_renderer(predictor, picture, squares, paste=chosen.pasted, lock=locked, largest=largest)
        log(loaded.describe())
        log(describe_size(renderer, squares[0]))
        stream = stack.enter_context(DrivingStream(driving, max_pixels))
        made = Made({"source": source}, published_name(loaded.name), loaded.sha256)
        sign = signing.signs(made) if signing else None
        sink = _open_sink(out, chosen, stream, renderer.width, renderer.height, overwrite, sign)
        return run_live(
            predictor,
            renderer,
            stream,
            sink,
            mode=chosen.mode,
            adapt_scale=chosen.adapt_scale,
            strength=chosen.strength,
            squares=_DrivingSquares(chosen.driving_crop, loaded.resolution, log),
            log=log,
        )


_SHARE = 0.3  # of the network's time for a frame, in which a stream's frames may be made at the source's own size


def quick_side(
    predictor: Predictor, picture: np.ndarray, squares: list[Square], largest: int, paste: bool | None
) -> int:
    """The largest side at which a stream does not become much slower, as measured here, in pixels: up to `largest`."""
    renderer = open_renderer(predictor, picture, squares, paste=paste, lock=False, largest=largest)
    if renderer.side <= predictor.resolution:
        return predictor.resolution
    frame = resize_frames(squares[0].cut(picture[None]), predictor.resolution)

    def drive() -> Driven:
        predictor.estimate(frame)
        return renderer.drive(slice(0, 1), AtRest(), None)

    driven = drive()
    network = min(timeit.repeat(drive, number=1, repeat=3))
    rendering = min(timeit.repeat(lambda: renderer.compose(driven), number=1, repeat=3))
    affordable = renderer.side * (_SHARE * network / rendering) ** 0.5  # pixels grow with the side's square
    return max(min(renderer.side, round(affordable)), predictor.resolution)


def _check(settings: Settings, out: Path, overwrite: bool) -> None:
    settings.check()
    for name in _NOT_LIVE:
        if getattr(settings, name) != getattr(Settings(), name):
            raise InputError(f"--{name} needs a driving video from a file: a stream is played as it comes")
    if settings.reference_frame not in ("best", "first"):
        raise InputError(f"--reference-frame {settings.reference_frame}: of a stream the first frame is the reference")
    if out != WINDOW:
        check_result(out, overwrite, settings.codec, settings.crf)


def _open_sink(
    out: Path,
    settings: Settings,
    stream: DrivingStream,
    width: int,
    height: int,
    overwrite: bool,
    sign: Sign | None,
) -> LiveSink:
    if out == WINDOW:
        return Window()
    options: dict[str, Any] = {"fps": stream.fps, "width": width, "height": height, "codec": settings.codec}
    options |= {"times": None, "sound": None, "crf": settings.crf, "overwrite": overwrite, "sign": sign}
    writer = open_result(out, frames=2, **options, **(MARK if settings.mark else {}))
    return LiveVideo(writer, stream.fps, live=stream.live)


class _DrivingSquares:
    """Cuts the square out of the driving frames: about the face in the first one, or as `crop` says."""

    def __init__(self, crop: str, resolution: int, log: Callable[[str], None]) -> None:
        self._crop = parse_crop(crop, "--driving-crop")
        self._resolution, self._log = resolution, log
        self._square: Square | None = None

    def __call__(self, frames: np.ndarray) -> Tensor:
        """uint8 (B, H, W, 3) -> uint8 (B, 3, R, R). Raises InputError for a square out of the picture."""
        if self._square is None:
            named = ("driving video", "--driving-crop")
            (self._square,) = frame_source(frames[0], self._crop, "largest", self._log, *named)
        return resize_frames(self._square.cut(frames), self._resolution)
