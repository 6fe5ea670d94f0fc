"""Still pictures: any common file -> uint8 RGB, and back."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from mtanimate.errors import InputError, MTAnimateError, OutOfMemory, is_of_memory
from mtanimate.files import Overwrite, replacing
from mtanimate.outputs import check_folder
from mtanimate.reading import MAX_PIXELS, check_pixels, check_readable, too_large

Log = Callable[[str], None]

# Photo editors write more than the megabyte of text, or of colour profile, that Pillow allows a PNG by itself.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

# What undoes each orientation of EXIF. Pillow's exif_transpose also rewrites the EXIF, and fails where that is broken.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# All that is read, by Pillow's names. It knows more: for one of them, EPS, it starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "AVIF", "TIFF")
_PNG = b"\x89PNG\r\n\x1a\n"
# Without these a PNG is no picture, or another one.
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
_LARGEST_PROFILE = 16 << 20  # bytes; printers' largest have some
_GREY = ("1", "L", "LA", "La")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read_image(
    path: str | Path, log: Log = lambda line: None, *, max_pixels: int = MAX_PIXELS, needed: int | None = None
) -> np.ndarray:
    """Reads a picture. The format is found from the content, not from the file's name.

    Returns uint8 RGB (H, W, 3) in sRGB, turned as its EXIF orientation says. 16 bits are scaled (65535 -> 255).
    Transparent pixels are laid over white. Of an animation, the first frame. Float pictures are taken
    as [0, 1], or as [0, 255] or [0, 65535] when a value exceeds the smaller range.

    log: gets a remark where something beside the picture is broken: an EXIF orientation, a colour profile, text.
    needed: where no more pixels than that are needed of the shorter side, a JPEG is decoded reduced, to twice as many
    or more. Raises InputError for a missing, damaged or foreign file, and for one of more than `max_pixels`.
    """
    path = Path(path)
    with opened_picture(path, log, max_pixels, needed) as picture:
        return to_rgb(picture, lambda line: log(f"{path}: {line}"))


@contextmanager
def opened_picture(
    path: Path, log: Log = lambda line: None, max_pixels: int = MAX_PIXELS, needed: int | None = None
) -> Iterator[Image.Image]:
    """Yields Pillow's picture, its first frame decoded. Raises InputError as `read_image`, in the block too."""
    check_readable(path, "picture")
    try:
        with _opened(path, log, max_pixels, needed) as picture:
            yield picture
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not a picture: give a PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP or GIF file"
        ) from error
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise too_large(path, f"{count[0] if count else 'too many'} pixels", max_pixels) from error
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise whatever the damage makes them stumble over
        if is_of_memory(error):
            raise OutOfMemory(path) from error
        raise InputError(f"{path} cannot be read ({_line(error)}): save or download the picture again") from error


def open_lazily(file: Path | BytesIO) -> Image.Image:
    """Pillow's picture, not decoded yet; by its content, and of no format but those that are read. Raises what Pillow
    does."""
    return Image.open(file, formats=[*_FORMATS, *(["HEIF"] if "HEIF" in Image.OPEN else [])])


def to_rgb(picture: Image.Image, log: Log = lambda line: None) -> np.ndarray:
    """Any mode of Pillow -> uint8 RGB (H, W, 3), as `read_image` gives it. Raises what Pillow does."""
    profile = picture.info.get("icc_profile")
    orientation = _orientation(picture, log)
    grey = picture.mode in _GREY
    if picture.mode == "F" or picture.mode.startswith("I"):
        # Pillow's own conversion would clip 16 bits.
        picture, grey = Image.fromarray(_eight_bits(np.asarray(picture))), True
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    if profile:
        picture = _in_srgb(picture, grey, profile, log)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def is_animated(path: Path) -> bool:
    """Whether a file is an animated GIF, WebP, PNG or AVIF. False also where it cannot be read: reading says why."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_lazily(path) as picture:
                return picture.format in ("GIF", "WEBP", "PNG", "AVIF") and getattr(picture, "is_animated", False)
    except Exception:  # as in `opened_picture`
        return False


def write_image(
    path: str | Path, array: np.ndarray, text: dict[str, str] | None = None, overwrite: Overwrite = True
) -> None:
    """Writes a picture whole or not at all. The extension says the format.

    array: uint8 RGB (H, W, 3). text: what to say of the picture, by keywords ("Title", "Comment"): PNG's text chunks;
    lines of EXIF's description in JPEG and WebP; other formats do not keep it.
    Raises InputError for a folder or an extension that cannot be written, CameMeanwhile for an existing file unless
    `overwrite`, MTAnimateError when writing fails.
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
        with replacing(path, overwrite) as partial:
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


def _opened(path: Path, log: Log, max_pixels: int, needed: int | None) -> Image.Image:
    """Raises what Pillow does; InputError for HEIC where pillow-heif is missing."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC and b"avif" not in start:
        _learn_heic(path)
    try:
        return _loaded(path, path, max_pixels, needed)
    except InputError:
        raise
    except Exception:  # as in `opened_picture`; what is wrong with the picture itself is wrong once more
        if not start.startswith(_PNG):
            raise
        picture = _loaded(BytesIO(_bare_png(path.read_bytes())), path, max_pixels, needed)
    log(f"{path}: something beside the picture is broken or too long (text, EXIF or colour profile): it is left out")
    return picture


def _loaded(file: Path | BytesIO, path: Path, max_pixels: int, needed: int | None) -> Image.Image:
    if Image.MAX_IMAGE_PIXELS is not None:  # at this Pillow warns, and at twice as many it refuses
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many pixels, and of broken metadata
        picture = open_lazily(file)
        try:
            check_pixels(path, *picture.size, max_pixels)
            if needed is not None:
                least = 2 * needed / min(picture.size)  # a JPEG's eighths, quarters and halves are rough
                picture.draft(None, (math.ceil(least * picture.width), math.ceil(least * picture.height)))
            picture.load()
        except BaseException:
            picture.close()
            raise
    return picture


def _bare_png(content: bytes) -> bytes:
    """A PNG without anything beside its picture."""
    chunks, start = [_PNG], len(_PNG)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")  # length, name, data, checksum
        if content[start + 4 : start + 8] in _NEEDED:
            chunks.append(content[start:end])
        start = end
    return b"".join(chunks)


def _learn_heic(path: Path) -> None:
    """Pillow reads HEIC from now on. Raises InputError where it cannot."""
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{path} is HEIC: pip install 'mtanimate[heic]', or save it as JPEG") from error
    pillow_heif.register_heif_opener()


def _orientation(picture: Image.Image, log: Log) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF that is broken elsewhere
            return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever Pillow's parser stumbles over
        log("its EXIF data are broken: it is not turned by them")
        return 1


def _in_srgb(picture: Image.Image, grey: bool, profile: bytes, log: Log) -> Image.Image:
    """A picture whose numbers mean what an ICC profile says -> RGB, or RGBA, in sRGB.

    A profile that is broken, or of another kind of colours than the picture's, is left out of account.
    """
    if len(profile) > _LARGEST_PROFILE:
        log(f"its colour profile is larger than {_LARGEST_PROFILE >> 20} MiB: its colours may be a little off")
        return picture
    fitting = {"CMYK": "CMYK"} if picture.mode == "CMYK" else {"RGB": "RGB", "GRAY": "L"} if grey else {"RGB": "RGB"}
    try:
        given = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = given.profile.xcolor_space.strip()
        if space not in fitting:
            log(f"its colour profile is for {space}, which it is not in: its colours may be a little off")
            return picture
        converted = ImageCms.profileToProfile(
            picture.convert(fitting[space]), given, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        log("its colour profile is broken: its colours may be a little off")
        return picture
    assert converted is not None
    if picture.mode == "RGBA":
        converted.putalpha(picture.getchannel("A"))
    return converted


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits, or float, (H, W) -> uint8 (H, W). Raises ValueError for an unknown range."""
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 65535):  # also true for NaN
        raise ValueError(f"its values run from {low:g} to {high:g}, not from 0 to 65535")
    factor, divisor = 1, 1
    if grey.dtype.kind == "f" and high <= 1:
        factor = 255
    elif grey.dtype.kind != "f" or high > 255:
        divisor = 257
    result = np.empty(grey.shape, np.uint8)
    for row, values in zip(result, grey, strict=True):  # as float64, all of it would take eight times its room
        row[...] = np.rint(values.astype(np.float64) * factor / divisor)
    return result


def _line(error: Exception) -> str:
    """The message of an exception as one line, without a file name that is said already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
