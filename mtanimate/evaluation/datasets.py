"""Which clips are measured."""

from pathlib import Path

from mtanimate.config import preset_names
from mtanimate.data.clips import Clip, find_clips
from mtanimate.errors import InputError


def find_test_clips(dataset: str | Path, data: str | Path | None) -> tuple[Path, dict[str, Clip]]:
    """The folder, and its clips by their names: paths below it, without extension.

    dataset: a folder of clips, of which its folder `test` is taken where there is one; or a preset's name, whose
    clips are in `data` (default `data/NAME`). Raises InputError where there are none, or two have one name.
    """
    if str(dataset) in preset_names():  # `./NAME` is a folder
        folder = Path(data).expanduser() if data else Path("data") / str(dataset)
    else:
        folder = Path(data or dataset).expanduser()
    if not folder.is_dir():
        raise InputError(f"--dataset {dataset}: no folder '{folder}'; give the clips' folder, or a preset and --data")
    folder = folder / "test" if (folder / "test").is_dir() else folder
    clips: dict[str, Clip] = {}
    for clip in find_clips(folder):
        below = clip.path.relative_to(folder)
        name = (below if clip.path.is_dir() else below.with_suffix("")).as_posix()
        if name in clips:
            raise InputError(f"{clip.path} and {clips[name].path} have the same name: rename one")
        clips[name] = clip
    return folder, clips
