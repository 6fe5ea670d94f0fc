"""The landmarks and mattes of a packed data set, small: `faces.npz`, by the content of its files."""

import zlib
from pathlib import Path

import numpy as np

from mtanimate.data.background import MATTE
from mtanimate.data.cache import NO_FACE
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.face_mesh import VERTICES
from mtanimate.files import replacing

STEPS = np.array([4, 4, 8], np.int16)  # x, y and z, in a cache's units: a 16th and an 8th of a pixel of 256
LEVELS = 7  # of a matte, besides none


def compress(landmarks: np.ndarray, mattes: np.ndarray) -> bytes:
    """int16 (N, 478, 3) and uint8 (N, 64, 64), as a cache keeps them, in coarser steps, each frame as the difference
    from the one before."""
    seen = landmarks[:, 0, 0] != NO_FACE
    coarse = np.rint(landmarks / STEPS).astype(np.int16)
    for number in np.flatnonzero(~seen):
        coarse[number] = coarse[number - 1] if number else 0
    changes = np.diff(coarse, axis=0, prepend=np.zeros_like(coarse[:1]))
    bytes_apart = changes.astype("<i2").view(np.uint8).reshape(-1, 2).T  # the upper ones hardly ever vary
    levels = np.rint(mattes * (LEVELS / 255)).astype(np.uint8)
    matte_changes = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))
    parts = (seen.astype(np.uint8), bytes_apart, matte_changes)
    return zlib.compress(b"".join(np.ascontiguousarray(part).tobytes() for part in parts), 9)


def decompress(data: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What `compress` made of `count` frames. Raises ValueError or zlib.error where it is something else."""
    values = np.frombuffer(zlib.decompress(data), np.uint8)
    numbers = count * VERTICES * 3
    seen, low_high, changes = np.split(values, [count, count + 2 * numbers])
    coarse = np.ascontiguousarray(low_high.reshape(2, -1).T).view("<i2").reshape(count, VERTICES, 3)
    landmarks = np.cumsum(coarse, axis=0, dtype=np.int16) * STEPS
    landmarks[seen == 0] = NO_FACE
    levels = np.cumsum(changes.reshape(count, MATTE, MATTE), axis=0, dtype=np.uint8)
    return landmarks, np.rint(levels * (255 / LEVELS)).astype(np.uint8)


def write_faces(file: Path, faces: dict[str, tuple[int, bytes]]) -> None:
    """faces: by digest, how many frames and what `compress` made of them. Raises MTAnimateError on a full disk."""
    sizes = [len(data) for _, data in faces.values()]
    try:
        with replacing(file) as partial:
            np.savez(
                partial,
                digests=np.array(list(faces), "S64"),
                counts=np.array([count for count, _ in faces.values()]),
                ends=np.cumsum(sizes),
                data=np.frombuffer(b"".join(data for _, data in faces.values()), np.uint8),
            )
    except OSError as error:
        raise MTAnimateError(f"{file} could not be written ({error.strerror}): is the disk full?") from error


class PackedFaces:
    """What `write_faces` wrote. Raises InputError for another or a damaged file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with np.load(file) as content:
                digests = [digest.decode() for digest in content["digests"].tolist()]
                data = np.split(content["data"], content["ends"][:-1])
                counts = content["counts"].tolist()
        except Exception as error:  # whatever the damage makes numpy stumble over
            raise InputError(f"'{file}' cannot be read ({type(error).__name__}): pack the data set anew") from error
        self._faces = dict(zip(digests, zip(counts, data, strict=True), strict=True))

    def __call__(self, digest: str, frames: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Landmarks and mattes of the packed file of this content, which has so many frames, as a cache keeps them;
        None where it has none."""
        if digest not in self._faces:
            return None
        count, data = self._faces[digest]
        try:
            if count != frames:
                raise ValueError(f"{count} frames, not {frames}")
            return decompress(data.tobytes(), count)
        except (ValueError, zlib.error) as error:
            raise InputError(f"'{self.file}' is damaged ({error}): pack the data set anew") from error
