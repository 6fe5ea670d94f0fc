"""The landmarks and mattes of a packed data set, small: `faces.npz`, by the content of its files.

A vertex moves as its neighbours do: what is kept of a frame is how much more or less each vertex has moved since the
frame before than two that lie next to it, in steps of an eighth of a pixel.
"""

import lzma
from pathlib import Path

import numpy as np

from mtanimate.data.background import MATTE
from mtanimate.data.cache import NO_FACE
from mtanimate.errors import InputError, MTAnimateError, OutOfMemory, is_of_memory
from mtanimate.face_mesh import VERTICES
from mtanimate.files import replacing
from mtanimate.npz import read_npz

STEPS = np.array([8, 8, 64], np.int32)  # x, y and z, in a cache's units: an eighth of a pixel of 256, and a pixel
LEVELS = 3  # of a matte, besides none
_MOST_BYTES = 4 << 30  # of a data set's faces
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "pb": 0}]


class FaceCode:
    """How faces are coded. reference: int16 (478, 3), a face as a cache keeps it, which each clip's first is like."""

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = reference
        self._first = np.rint(reference / STEPS).astype(np.int32)
        places = reference[:, :2].astype(float)
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        # Among the vertices of lower numbers, which are decoded before.
        self._neighbours = [np.argsort(apart[vertex, :vertex], kind="stable")[:2] for vertex in range(VERTICES)]

    def compress(self, landmarks: np.ndarray, mattes: np.ndarray) -> bytes:
        """Of N frames in the order of time: int16 (N, 478, 3) and uint8 (N, 64, 64), as a cache keeps them."""
        seen = landmarks[:, 0, 0] != NO_FACE
        coarse = np.rint(landmarks / STEPS).astype(np.int32)
        for number in np.flatnonzero(~seen):
            coarse[number] = coarse[number - 1] if number else self._first
        moves = np.diff(coarse, axis=0, prepend=self._first[None])
        rest = moves.copy()
        for vertex in range(1, VERTICES):
            rest[:, vertex] -= self._likely(moves, vertex)
        # x, y and z apart, and of each the upper bytes, which hardly ever vary.
        bytes_apart = rest.transpose(2, 0, 1).reshape(3, -1, 1).astype("<i2").view(np.uint8).swapaxes(1, 2)
        levels = np.rint(mattes * (LEVELS / 255)).astype(np.uint8)
        changes = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))
        data = b"".join(np.ascontiguousarray(part).tobytes() for part in (seen.astype(np.uint8), bytes_apart, changes))
        return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)

    def decompress(self, data: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What `compress` made of `count` frames. Raises ValueError or LZMAError where it is something else."""
        size = count * (1 + VERTICES * 3 * 2 + MATTE**2)
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(data, size + 1)
        if len(unpacked) != size:
            raise ValueError(f"it does not unpack to {size} bytes")
        values = np.frombuffer(unpacked, np.uint8)
        seen, bytes_apart, changes = np.split(values, [count, count + count * VERTICES * 3 * 2])
        rest = np.ascontiguousarray(bytes_apart.reshape(3, 2, -1).swapaxes(1, 2)).view("<i2")
        moves = rest.reshape(3, count, VERTICES).transpose(1, 2, 0).astype(np.int32)
        for vertex in range(1, VERTICES):
            moves[:, vertex] += self._likely(moves, vertex)
        landmarks = ((self._first + np.cumsum(moves, axis=0)) * STEPS).astype(np.int16)
        landmarks[seen == 0] = NO_FACE
        levels = np.cumsum(changes.reshape(count, MATTE, MATTE), axis=0, dtype=np.uint8)
        return landmarks, np.rint(levels * (255 / LEVELS)).astype(np.uint8)

    def _likely(self, moves: np.ndarray, vertex: int) -> np.ndarray:
        """How a vertex has moved, by its neighbours': (N, 3)."""
        return moves[:, self._neighbours[vertex]].sum(axis=1) // len(self._neighbours[vertex])


def write_faces(file: Path, code: FaceCode, faces: dict[str, tuple[int, bytes]]) -> None:
    """faces: by digest, how many frames and what `compress` made of them. Raises MTAnimateError on a full disk."""
    sizes = [len(data) for _, data in faces.values()]
    try:
        with replacing(file) as partial:
            np.savez(
                partial,
                reference=code.reference,
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
            content = read_npz(file, ("reference", "digests", "counts", "ends", "data"), _MOST_BYTES)
            self._code = FaceCode(content["reference"])
            digests = [digest.decode() for digest in content["digests"].tolist()]
            data = np.split(content["data"], content["ends"][:-1])
            counts = content["counts"].tolist()
            self._faces = dict(zip(digests, zip(counts, data, strict=True), strict=True))
        except Exception as error:  # whatever the damage makes numpy stumble over
            if is_of_memory(error):
                raise OutOfMemory(f"'{file}'") from error
            raise InputError(f"'{file}' cannot be read ({type(error).__name__}): pack the data set anew") from error

    def __call__(self, digest: str, frames: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Landmarks and mattes of the packed file of this content, which has so many frames, as a cache keeps them;
        None where it has none."""
        if digest not in self._faces:
            return None
        count, data = self._faces[digest]
        try:
            if count != frames:
                raise ValueError(f"{count} frames, not {frames}")
            return self._code.decompress(data.tobytes(), count)
        except (ValueError, lzma.LZMAError) as error:
            raise InputError(f"'{self.file}' is damaged ({error}): pack the data set anew") from error
