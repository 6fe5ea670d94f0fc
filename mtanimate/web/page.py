"""The page: what is on it, and what happens when somebody uses it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr

from mtanimate.animation.animate import STAGES
from mtanimate.errors import MTAnimateError
from mtanimate.web import pictures, work
from mtanimate.web.examples import example_clip, example_photo
from mtanimate.web.gate import ALIAS
from mtanimate.web.live import Live
from mtanimate.web.running import Done, Runner, seconds_of

HERE = Path(__file__).parent
CSS, SCRIPT = HERE / "page.css", HERE / "page.js"
CONSENT = "Animate only people who agreed to it. Every result says in its metadata that it is synthetic."
_WHOLE = ["largest", "all"]
_DRAWING = {"drawing": 1.0}


def theme() -> gr.themes.Base:
    """Fonts of the visitor's own system, and colours with a contrast of at least 4.5 : 1."""
    quiet, quiet_dark, blue = "*neutral_600", "*neutral_300", "#1d4ed8"
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    ).set(
        body_text_color_subdued=quiet,
        body_text_color_subdued_dark=quiet_dark,
        block_label_text_color=quiet,
        block_label_text_color_dark=quiet_dark,
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        color_accent=blue,
        button_primary_background_fill=blue,
        button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark=blue,
        button_primary_background_fill_hover_dark="#1e40af",
        link_text_color=blue,
        link_text_color_dark="#93c5fd",
    )


def build(runner: Runner) -> gr.Blocks:
    """The page for this runner."""
    with gr.Blocks(title="mtanimate", analytics_enabled=False) as page:
        gr.HTML(
            "<header><h1>Animate a photo</h1><p>Give a photo and a video of someone who moves: the photo moves along. "
            f"<strong>{CONSENT}</strong></p></header>"
        )
        with gr.Tabs():
            with gr.Tab("Animate", id="animate"):
                photo, driving = _animate_tab(runner)
            with gr.Tab("Look inside", id="inside"):
                _inside_tab(runner, photo, driving)
            with gr.Tab("Performances", id="performances"):
                _performances_tab(runner, photo, driving)
            with gr.Tab("Live", id="live"):
                Live(runner).show(photo)
    return page


# Tabs


def _animate_tab(runner: Runner) -> tuple[gr.Image, gr.Video]:
    with gr.Row():
        with gr.Column(scale=6, min_width=320):
            with gr.Row():
                with gr.Column(min_width=260):
                    photo, face = _photo_input(runner)
                with gr.Column(min_width=260):
                    driving, start, end = _driving_input(runner)
            with gr.Row():
                button = gr.Button("Animate", variant="primary", elem_id="animate")
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
            options = {"face": face, "start": start, "end": end} | _options()
        with gr.Column(scale=5, min_width=320, elem_classes="outcome"):
            status = gr.HTML(pictures.said("The result will be here."), elem_id="status")
            view = gr.HTML(elem_id="result")

    def prepare(photo: str, driving: str, **chosen: Any) -> Callable[..., work.Made]:
        kind = chosen.pop("format")
        return work.animate(runner, photo, driving, kind, _settings(runner, driving, chosen))

    def show(made: work.Made, photo: str, driving: str, **chosen: Any) -> str:
        return pictures.side_by_side(made, _address(runner, made.file), _address(runner, driving), chosen["start"] or 0)

    use = Use(runner, "animate", "Animate a photo with the motion of a video.", STAGES, prepare, show)
    use.wire(button, cancel, {"photo": photo, "driving": driving} | options, status, view)
    return photo, driving


def _photo_input(runner: Runner) -> tuple[gr.Image, gr.Radio]:
    photo = gr.Image(
        label="Photo",
        sources=["upload", "clipboard", "webcam"],
        type="filepath",
        height=300,
        buttons=[],
        webcam_options=gr.WebcamOptions(mirror=False),
        elem_id="photo",
    )
    photo = _as_file(photo)
    example = gr.Button("Use the example photo", size="sm", elem_id="example-photo")
    example.click(lambda: str(example_photo(runner.room.folder)), None, photo, api_visibility="private")
    faces = gr.HTML(elem_id="faces")
    face = gr.Radio(
        [*_WHOLE, *map(str, range(1, 10))], value="largest", label="Which face", visible=False, elem_id="face"
    )
    photo.change(
        lambda path: _look_at_photo(runner, path),
        photo,
        [faces, face],
        api_visibility="private",
        show_progress_on=faces,
        concurrency_limit=2,
    )
    return photo, face


def _as_file(component: Any) -> Any:
    """The same component, whose value reaches us as the file that was uploaded: Gradio would decode it unchecked.

    (Gradio writes a file beside the module of every subclass of a component, so this is none.)
    """
    component.preprocess = lambda payload: payload.path if payload else None
    return component


def _look_at_photo(runner: Runner, path: str | None) -> tuple[str, Any]:
    """The photo with its faces, and the choice among them."""
    whole = gr.update(choices=_WHOLE, value="largest", visible=False)
    if path is None:
        return "", whole
    try:
        picture = work.read_photo(runner, path)
    except MTAnimateError as error:
        return pictures.failed(runner.words(error)), whole
    boxes = work.faces_in(picture)
    numbers = [str(number) for number in range(1, len(boxes) + 1)]
    choice = gr.update(choices=[*_WHOLE, *numbers], value="largest", visible=True) if len(boxes) > 1 else whole
    return pictures.photo_with_faces(picture, boxes), choice


def _driving_input(runner: Runner) -> tuple[gr.Video, gr.Slider, gr.Slider]:
    driving = gr.Video(
        label="Driving video",
        sources=["upload", "webcam"],
        height=300,
        buttons=[],
        webcam_options=gr.WebcamOptions(mirror=False),
        elem_id="driving",
    )
    driving = _as_file(driving)
    example = gr.Button("Use the example video", size="sm", elem_id="example-video")
    example.click(lambda: str(example_clip(runner.room.folder)), None, driving, api_visibility="private")
    strip = gr.HTML(elem_id="strip")
    with gr.Row(visible=False) as part:
        most = runner.limits.seconds
        start = gr.Slider(0, most, 0, step=0.04, label="Start (seconds)", elem_id="start", min_width=200)
        end = gr.Slider(0, most, 0, step=0.04, label="End (seconds)", elem_id="end", min_width=200)
    driving.change(
        lambda path: _look_at_clip(runner, path),
        driving,
        [strip, part, start, end],
        api_visibility="private",
        show_progress_on=strip,
        concurrency_limit=2,
    )
    return driving, start, end


def _look_at_clip(runner: Runner, path: str | None) -> tuple[str, Any, Any, Any]:
    """The video's film strip, and sliders as long as it is."""
    hidden, whole = gr.update(visible=False), gr.update(value=0)
    if path is None:
        return "", hidden, whole, whole
    try:
        footage = runner.open_clip(path)
        strip = pictures.film_strip(footage)
    except MTAnimateError as error:
        return pictures.failed(runner.words(error)), hidden, whole, whole
    seconds = round(seconds_of(footage) + 0.005, 2)
    return (
        strip,
        gr.update(visible=True),
        gr.update(maximum=seconds, value=0),
        gr.update(maximum=seconds, value=seconds),
    )


def _options() -> dict[str, Any]:
    """What people change, then the rest folded away."""
    chosen: dict[str, Any] = {}
    with gr.Row():
        chosen["strength"] = gr.Slider(0, 2, 1, step=0.05, label="Strength of the movement", min_width=160)
        chosen["smooth"] = gr.Slider(0, 0.5, 0, step=0.01, label="Smooth over (seconds)", min_width=160)
    chosen["mode"] = gr.Radio(
        [("Add the driver's movement to the photo's pose", "relative"), ("Copy the driver's pose", "absolute")],
        value="relative",
        label="Motion",
    )
    with gr.Row():
        chosen["audio"] = gr.Checkbox(True, label="Keep the sound", min_width=140)
        chosen["compare"] = gr.Checkbox(False, label="Photo, driver and result side by side", min_width=140)
    with gr.Accordion("More options", open=False):
        with gr.Row():
            chosen["background"] = gr.Radio(["move", "lock"], value="move", label="Background", min_width=160)
            chosen["format"] = gr.Radio(list(work.FORMATS), value="mp4", label="Format", min_width=160)
        with gr.Row():
            chosen["paste_back"] = gr.Radio(
                [("where it was cropped", "auto"), ("always", "yes"), ("never", "no")],
                value="auto",
                label="Put the animated square back into the photo",
                min_width=160,
            )
        with gr.Row():
            chosen["track"] = gr.Checkbox(False, label="Follow the driver's face", min_width=140)
            chosen["adapt_scale"] = gr.Checkbox(True, label="Scale movement by the faces' sizes", min_width=140)
        with gr.Row():
            for name, label, first in (
                ("crop", "Crop of the photo (auto, none, or X,Y,W,H)", "auto"),
                ("driving_crop", "Crop of the video (auto, none, or X,Y,W,H)", "auto"),
                ("resolution", "Largest side of the animated square (auto, or pixels)", "auto"),
                ("reference_frame", "Reference frame (best, first, or a number)", "best"),
            ):
                chosen[name] = gr.Textbox(first, label=label, min_width=160)
    return chosen


def _settings(runner: Runner, driving: str | None, chosen: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Settings` from the values of the controls. A slider at its end asks for nothing."""
    footage = runner.open_clip(driving)
    pasted = {"auto": None, "yes": True, "no": False}
    settings = chosen | {"paste_back": pasted[chosen["paste_back"]]}
    settings["start"] = chosen["start"] or None
    settings["end"] = None if not chosen["end"] or chosen["end"] >= seconds_of(footage) - 0.005 else chosen["end"]
    return settings


def _inside_tab(runner: Runner, photo: gr.Image, driving: gr.Video) -> None:
    gr.Markdown("What the network sees on the way to a result, of the photo and the driving video in the tab Animate.")
    with gr.Row():
        what = gr.Radio(
            [("Keypoints, masks and flow", "steps"), ("Attention", "attention")], value="steps", label="Show"
        )
        layer = gr.Textbox("all", label="Layer of the attention (a number from 1, or all)")
        moving = gr.Checkbox(False, label="All frames, as a video")
    with gr.Row():
        button = gr.Button("Look inside", variant="primary", elem_id="look")
        cancel = gr.Button("Cancel", interactive=False)
    status, view = gr.HTML(elem_id="inside-status"), gr.HTML(elem_id="inside-result")

    def prepare(photo: str, driving: str, what: str, layer: str, moving: bool) -> Callable[..., work.Made]:
        return work.look_inside(runner, photo, driving, what, moving, layer)

    def show(made: work.Made, **chosen: Any) -> str:
        return pictures.alone(made, _address(runner, made.file))

    use = Use(runner, "look_inside", "Draw what the network does.", _DRAWING, prepare, show)
    inputs = {"photo": photo, "driving": driving, "what": what, "layer": layer, "moving": moving}
    use.wire(button, cancel, inputs, status, view)


def _performances_tab(runner: Runner, photo: gr.Image, driving: gr.Video) -> None:
    gr.Markdown(
        "Keep the motion of a video in a small file without any picture, and give it to many photos. "
        "The video is the one in the tab Animate."
    )
    with gr.Row():
        with gr.Column(min_width=320):
            keep = gr.Button("Keep the motion of the driving video", elem_id="keep")
            keep_cancel = gr.Button("Cancel", interactive=False)
            keep_status, keep_view = gr.HTML(elem_id="keep-status"), gr.HTML(elem_id="kept")
        with gr.Column(min_width=320):
            motion = gr.File(label="Motion", file_types=[".safetensors", ".npz"], height=120, elem_id="motion")
            photos = gr.File(label="Photos", file_count="multiple", file_types=["image"], height=160, elem_id="photos")
            strength = gr.Slider(0, 2, 1, step=0.05, label="Strength of the movement")
            apply = gr.Button("Animate all photos", variant="primary", elem_id="apply")
            apply_cancel = gr.Button("Cancel", interactive=False)
    status, view = gr.HTML(elem_id="apply-status"), gr.HTML(elem_id="applied")

    def read(photo: str, driving: str) -> Callable[..., work.Made]:
        return work.keep_motion(runner, photo, driving)

    def show_kept(made: work.Made, **chosen: Any) -> str:
        return pictures.kept(made, _address(runner, made.file))

    def give(motion: str, photos: list[str], strength: float) -> Callable[..., list[work.Made | str]]:
        return work.apply_motion(runner, motion, photos, {"strength": strength})

    def show_all(results: list[work.Made | str], **chosen: Any) -> str:
        return pictures.several([r if isinstance(r, str) else (r, _address(runner, r.file)) for r in results])

    keeping = Use(runner, "keep_motion", "Read the motion of a video into a file.", STAGES, read, show_kept)
    keeping.wire(keep, keep_cancel, {"photo": photo, "driving": driving}, keep_status, keep_view)
    giving = Use(runner, "apply_motion", "Give a kept motion to many photos.", STAGES, give, show_all)
    giving.wire(apply, apply_cancel, {"motion": motion, "photos": photos, "strength": strength}, status, view)


# From a button to a result


@dataclass(frozen=True)
class Use:
    """One thing that a visitor can ask for, by a button or by the API.

    Attributes:
        name: Of the endpoint.
        words: What it does, for the page that describes the API.
        shares: Of its stages, as `Stages` takes them.
        prepare: From the values of the inputs to the work, with everything checked that can be known before.
        show: From what the work gave, and the values, to HTML.
    """

    runner: Runner
    name: str
    words: str
    shares: Mapping[str, float]
    prepare: Callable[..., Callable[..., Any]]
    show: Callable[..., str]

    def wire(
        self, button: gr.Button, cancel: gr.Button, inputs: dict[str, Any], status: gr.HTML, view: gr.HTML
    ) -> None:
        """Connect the button, the one that cancels, and the endpoint of the API."""
        names = list(inputs)
        event = button.click(
            self._in_page(names),
            list(inputs.values()),
            [status, view, cancel],
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )
        cancel.click(
            lambda: (pictures.said("Cancelled."), gr.update(interactive=False)),
            None,
            [status, cancel],
            cancels=[event],
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        files = gr.File(visible=False, label="Files", file_count="multiple")
        report = gr.JSON(visible=False, label="Report")
        gr.Button(visible=False).click(
            self._by_api(names),
            list(inputs.values()),
            [files, report],
            concurrency_limit=None,
            api_name=self.name,
            api_description=self.words,
        )

    def _in_page(self, names: Sequence[str]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        def run(*values: Any) -> Iterator[tuple[Any, ...]]:
            chosen = dict(zip(names, values, strict=True))
            yield pictures.progress(None), "", gr.update(interactive=True)
            try:
                for step in self.runner.follow(self.prepare(**chosen), self.shares):
                    if isinstance(step, Done):
                        yield pictures.said("Done."), self.show(step.value, **chosen), gr.update(interactive=False)
                    else:
                        yield pictures.progress(step), gr.skip(), gr.skip()
            except Exception as error:
                yield pictures.failed(self.runner.words(error)), "", gr.update(interactive=False)

        return run

    def _by_api(self, names: Sequence[str]) -> Callable[..., Iterator[tuple[Any, Any]]]:
        def run(*values: Any) -> Iterator[tuple[Any, Any]]:
            chosen = dict(zip(names, values, strict=True))
            try:
                for step in self.runner.follow(self.prepare(**chosen), self.shares):
                    if isinstance(step, Done):
                        yield _report(step.value)
                    else:
                        yield None, {"state": type(step).__name__.lower(), **vars(step)}
            except Exception as error:
                raise gr.Error(self.runner.words(error), print_exception=False) from None

        run.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # type: ignore[attr-defined]
        return run


def _report(value: Any) -> tuple[list[str], dict[str, Any]]:
    """Files and a description, for the API."""
    results = value if isinstance(value, list) else [value]
    made = [result for result in results if isinstance(result, work.Made)]
    report = {
        "state": "done",
        "results": [
            {"error": result}
            if isinstance(result, str)
            else {"file": result.file.name, "about": result.line, "warnings": result.warnings}
            for result in results
        ],
    }
    return [str(result.file) for result in made], report


def _address(runner: Runner, file: str | Path) -> str:
    """Where the page finds a file of the private folder."""
    return pictures.address_of(f"{ALIAS}/{Path(file).resolve().relative_to(runner.room.folder).as_posix()}")
