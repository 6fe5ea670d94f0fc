"""Still pictures: any common file to uint8 RGB, and back."""

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

# Photo editors write more text and larger colour profiles than the megabyte that Pillow allows in a PNG.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

# Undoes each EXIF orientation. Pillow's exif_transpose also rewrites the EXIF data, and fails where they are broken.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The formats that are read, by Pillow's names. Of its others, EPS would start Ghostscript.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "AVIF", "TIFF")
_PNG = b"\x89PNG\r\n\x1a\n"
# The chunks of a PNG that its picture depends on.
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
_LARGEST_PROFILE = 16 << 20  # bytes; the largest profiles of printers have a few million
_GREY = ("1", "L", "LA", "La")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read_image(
    path: str | Path, log: Log = lambda line: None, *, max_pixels: int = MAX_PIXELS, needed: int | None = None
) -> np.ndarray:
    """Reads a picture. The format is detected from the content, not from the file's name.

    The picture is turned as its EXIF orientation says, and converted to sRGB by its colour profile. 16 bits are scaled
    (65535 -> 255). Transparent pixels are laid over white. Of an animation the first frame is read. Float pictures are
    taken as [0, 1], or as [0, 255] or [0, 65535] if a value exceeds the smaller range.

    Args:
        path: of the file.
        log: gets a remark where an EXIF orientation, a colour profile or text is broken.
        max_pixels: the most pixels.
        needed: pixels of the shorter side that are enough: a JPEG may be decoded at a reduced size of at least twice
            that.

    Returns:
        uint8 RGB (H, W, 3), sRGB.

    Raises:
        InputError: the file is missing, damaged, no picture, or has more than `max_pixels`.
    """
    path = Path(path)
    with open_picture(path, log, max_pixels, needed) as picture:
        return to_rgb(picture, lambda line: log(f"{path}: {line}"))


@contextmanager
def open_picture(
    path: Path, log: Log = lambda line: None, max_pixels: int = MAX_PIXELS, needed: int | None = None
) -> Iterator[Image.Image]:
    """Yields Pillow's picture with its first frame decoded.

    Args:
        path: of the file.
        log: gets remarks, as in `read_image`.
        max_pixels: the most pixels.
        needed: as in `read_image`.

    Raises:
        InputError: as `read_image`, also for errors of Pillow inside the block.
    """
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
    except Exception as error:  # damage makes Pillow's readers raise errors of any type
        if is_of_memory(error):
            raise OutOfMemory(path) from error
        raise InputError(f"{path} cannot be read ({_line(error)}): save or download the picture again") from error


def open_lazily(file: Path | BytesIO) -> Image.Image:
    """Opens a picture of a format that is read, by its content, without decoding it. Raises Pillow's errors."""
    return Image.open(file, formats=[*_FORMATS, *(["HEIF"] if "HEIF" in Image.OPEN else [])])


def to_rgb(picture: Image.Image, log: Log = lambda line: None) -> np.ndarray:
    """Converts a picture of any mode to uint8 RGB (H, W, 3), as `read_image` does. Raises Pillow's errors."""
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
    """Whether a file is an animated GIF, WebP, PNG or AVIF. False also where it cannot be read: reading tells why."""
    if not path.is_file():  # opening a pipe would wait
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_lazily(path) as picture:
                return picture.format in ("GIF", "WEBP", "PNG", "AVIF") and getattr(picture, "is_animated", False)
    except Exception:  # as in `open_picture`
        return False


def write_image(
    path: str | Path,
    array: np.ndarray,
    text: dict[str, str] | None = None,
    overwrite: Overwrite = True,
    sign: Callable[[Path], None] | None = None,
) -> None:
    """Writes a picture whole or not at all; the extension chooses the format.

    Args:
        path: of the file.
        array: uint8 RGB (H, W, 3).
        text: metadata by keyword ("Title", "Comment"): PNG's text chunks, EXIF's description in JPEG and WebP; other
            formats do not store it.
        overwrite: whether an existing file may be replaced.
        sign: signs the finished file in its place, before it gets its name.

    Raises:
        InputError: a folder, or an extension that cannot be written.
        CameMeanwhile: the file exists, unless `overwrite`.
        MTAnimateError: writing failed.
        ValueError: the array has another type or shape.
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
            if sign is not None:
                sign(partial)
    except (OSError, ValueError) as error:
        raise MTAnimateError(f"{path} could not be written ({_line(error)}): is the disk full?") from error


def png_text(text: dict[str, str]) -> PngInfo:
    """Metadata as Pillow's `pnginfo`."""
    chunks = PngInfo()
    for keyword, line in text.items():
        chunks.add_text(keyword, line)
    return chunks


def _said(known: str | None, text: dict[str, str]) -> dict[str, Any]:
    """Pillow's arguments to write this metadata in a picture of this format."""
    if text and known == "PNG":
        return {"pnginfo": png_text(text)}
    if text and known in ("JPEG", "WEBP"):
        exif = Image.Exif()
        lines = "\n".join(f"{keyword}: {line}" for keyword, line in text.items())
        exif[ExifTags.Base.ImageDescription] = lines.encode()  # as bytes: Pillow replaces what is not ASCII by '?'
        return {"exif": exif}
    return {}


def _opened(path: Path, log: Log, max_pixels: int, needed: int | None) -> Image.Image:
    """Opens and decodes. Raises Pillow's errors, and InputError for HEIC without pillow-heif."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC and b"avif" not in start:
        _learn_heic(path)
    try:
        return _loaded(path, path, max_pixels, needed)
    except InputError:
        raise
    except Exception:  # as in `open_picture`; if the picture itself is broken, it fails again below
        if not start.startswith(_PNG):
            raise
        picture = _loaded(BytesIO(_bare_png(path.read_bytes())), path, max_pixels, needed)
    log(f"{path}: something beside the picture is broken or too long (text, EXIF or colour profile): it is left out")
    return picture


def _loaded(file: Path | BytesIO, path: Path, max_pixels: int, needed: int | None) -> Image.Image:
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow warns at this number, and refuses twice as many
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many pixels, and of broken metadata
        picture = open_lazily(file)
        try:
            check_pixels(path, *picture.size, max_pixels)
            if needed is not None:
                least = 2 * needed / min(picture.size)  # JPEG's reduced sizes are rough
                picture.draft(None, (math.ceil(least * picture.width), math.ceil(least * picture.height)))
            picture.load()
        except BaseException:
            picture.close()
            raise
    return picture


def _bare_png(content: bytes) -> bytes:
    """A PNG with nothing but the chunks of its picture."""
    chunks, start = [_PNG], len(_PNG)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")  # length, name, data, checksum
        if content[start + 4 : start + 8] in _NEEDED:
            chunks.append(content[start:end])
        start = end
    return b"".join(chunks)


def _learn_heic(path: Path) -> None:
    """Teaches Pillow to read HEIC. Raises InputError without pillow-heif."""
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
    except Exception:  # Pillow's parser raises errors of any type
        log("its EXIF data are broken: it is not turned by them")
        return 1


def _in_srgb(picture: Image.Image, grey: bool, profile: bytes, log: Log) -> Image.Image:
    """Converts a picture with an ICC profile to RGB or RGBA in sRGB.

    A profile that is broken, or made for another colour space than the picture's, is ignored.
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
    """Scales grey of 16 or 32 bits, or float, (H, W), to uint8 (H, W). Raises ValueError for an unknown range."""
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 65535):  # also true for NaN
        raise ValueError(f"its values run from {low:g} to {high:g}, not from 0 to 65535")
    factor, divisor = 1, 1
    if grey.dtype.kind == "f" and high <= 1:
        factor = 255
    elif grey.dtype.kind != "f" or high > 255:
        divisor = 257
    result = np.empty(grey.shape, np.uint8)
    for row, values in zip(result, grey, strict=True):  # row by row: float64 takes eight times the memory
        row[...] = np.rint(values.astype(np.float64) * factor / divisor)
    return result


def _line(error: Exception) -> str:
    """An exception's message in one line, without a file name that is already given."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
