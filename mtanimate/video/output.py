"""Where a video can be written, said before any work."""

from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.files import Overwrite, exists_already, may_replace, taken
from mtanimate.video.encoding import Encoding, choose_encoding
from mtanimate.video.files import check_folder, check_new_file
from mtanimate.video.sequence import is_our_sequence


def check_output(path: str | Path, overwrite: Overwrite, codec: str | None = None, crf: int | None = None) -> Encoding:
    """Says before any work whether a video can be written at `path`, and how.

    path: ends in the container's extension, or in a slash for a folder of PNG (as text: a Path keeps no slash;
    `codec="png"` and no extension say the same). codec: None is the container's own. crf: None is the codec's own.

    Raises InputError for an unknown extension or codec, a codec that the container cannot hold or this ffmpeg
    cannot make, a crf that the codec has not; for a missing or read-only folder, a folder in the file's place; for
    an existing file unless `overwrite`; for a folder with anything in it, unless `overwrite` and it holds nothing
    but pictures that were written here.
    """
    encoding = choose_encoding(path, codec, crf)
    path = Path(path)
    if encoding.name == "png":
        check_folder(path)  # first: it puts back what a run that was killed had set aside
        _check_sequence(path, overwrite)
    else:
        check_new_file(path, overwrite)
    return encoding


def _check_sequence(path: Path, overwrite: Overwrite) -> None:
    if not taken(path):
        return
    if not path.is_dir():
        what = "a file" if path.exists() else "a link to nothing"
        raise InputError(f"{path} is {what}: choose another name for the folder of pictures")
    if not is_our_sequence(path):
        raise InputError(f"{path} holds other files: choose a new or an empty folder")
    if (path.is_symlink() or any(path.iterdir())) and not may_replace(path, overwrite):
        raise exists_already(path)
