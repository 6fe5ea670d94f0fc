"""Still pictures: any common file -> uint8 RGB, and back."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing
from mtanimate.video.files import check_folder, check_readable


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture. The format is found from the content, not from the file's name.

    Returns uint8 RGB (H, W, 3), turned as its EXIF orientation says. 16 bits are scaled (65535 -> 255).
    Transparent pixels are laid over white. Of an animation, the first frame. Float pictures are taken
    as [0, 1], or as [0, 255] or [0, 65535] when a value exceeds the smaller range.

    Raises InputError for a missing, damaged or foreign file, and for one of more pixels than Pillow allows.
    """
    path = Path(path)
    check_readable(path, "picture")
    try:
        with warnings.catch_warnings():
            # Pillow only warns at 90 megapixels (a phone's photo may have 108) and refuses at 179.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                picture = ImageOps.exif_transpose(opened)
                return _rgb(picture)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture: give a PNG, JPEG, WebP, TIFF, BMP or GIF file") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels: make the picture smaller first") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever the damage makes them stumble over
        raise InputError(f"{path} cannot be read ({_line(error)}): save or download the picture again") from error


def write_image(path: str | Path, array: np.ndarray, text: dict[str, str] | None = None) -> None:
    """Writes a picture whole or not at all; an existing file is replaced. The extension says the format.

    array: uint8 RGB (H, W, 3). text: what to say of the picture, by keywords ("Title", "Comment"): PNG's text chunks;
    lines of EXIF's description in JPEG and WebP; other formats do not keep it.
    Raises InputError for a folder or an extension that cannot be written, MTAnimateError when writing fails.
    """
    path = Path(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), got {array.dtype} {array.shape}")
    known = Image.registered_extensions().get(path.suffix.lower())
    if known not in Image.SAVE:
        raise InputError(f"{path}: a picture cannot be written as '{path.suffix}': use .png or .jpg")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file name")
    check_folder(path)
    try:
        with replacing(path) as partial:
            Image.fromarray(array).save(partial, **_said(known, text or {}))
    except (OSError, ValueError) as error:
        raise MTAnimateError(f"{path} could not be written ({_line(error)}): is the disk full?") from error


def png_text(text: dict[str, str]) -> PngInfo:
    """What Pillow takes as `pnginfo`."""
    chunks = PngInfo()
    for keyword, line in text.items():
        chunks.add_text(keyword, line)
    return chunks


def _said(known: str | None, text: dict[str, str]) -> dict[str, Any]:
    """Pillow's arguments that write this text in a picture of this format."""
    if text and known == "PNG":
        return {"pnginfo": png_text(text)}
    if text and known in ("JPEG", "WEBP"):
        exif = Image.Exif()
        lines = "\n".join(f"{keyword}: {line}" for keyword, line in text.items())
        exif[ExifTags.Base.ImageDescription] = lines.encode()  # as bytes: Pillow would make '?' of what is not ASCII
        return {"exif": exif}
    return {}


def _rgb(picture: Image.Image) -> np.ndarray:
    """Any mode of Pillow -> uint8 RGB (H, W, 3)."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        grey = _eight_bits(np.asarray(picture))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))  # Pillow's own conversion would clip 16 bits, hence the branch above


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits, or float, (H, W) -> uint8 (H, W). Raises ValueError for an unknown range."""
    values = grey.astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535):  # also true for NaN
        raise ValueError(f"its values run from {low:g} to {high:g}, not from 0 to 65535")
    if grey.dtype.kind == "f" and high <= 1:
        values *= 255
    elif grey.dtype.kind != "f" or high > 255:
        values /= 257
    return np.rint(values).astype(np.uint8)


def _line(error: Exception) -> str:
    """The message of an exception as one line, without a file name that is said already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
