"""Detectors of landmarks and identities, behind one interface: networks, and files that other programs wrote."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mtanimate.errors import InputError
from mtanimate.faces.detection import find_faces
from mtanimate.faces.mesh import model, starting
from mtanimate.files import sha256
from mtanimate.reading import open_regular, read_array, read_json


@dataclass(frozen=True)
class Frames:
    """Some frames of one clip.

    Attributes:
        pictures: uint8 RGB (B, H, W, 3).
        clip: The clip's name below the data set, without extension.
        numbers: The frames' numbers in the clip, from 0.
        generated: Whether the network generated them; otherwise they are the truth.
    """

    pictures: np.ndarray
    clip: str
    numbers: range
    generated: bool

    def __getitem__(self, part: slice) -> "Frames":
        return Frames(self.pictures[part], self.clip, self.numbers[part], self.generated)


@dataclass(frozen=True)
class Detections:
    """What a detector found in B pictures.

    Attributes:
        landmarks: (B, N, 2 or 3), x, y and perhaps z in pixels; NaN where a landmark was not found.
        descriptors: Identities as vectors (B, D); NaN where nobody was found. None where they were not asked for, or
            the detector cannot tell identities.
    """

    landmarks: np.ndarray
    descriptors: np.ndarray | None

    def __len__(self) -> int:
        return len(self.landmarks)

    def __getitem__(self, part: slice) -> "Detections":
        return Detections(self.landmarks[part], None if self.descriptors is None else self.descriptors[part])

    def repeated(self, times: int) -> "Detections":
        """The detections in the first picture, repeated for as many pictures as `times`."""
        rows = np.zeros(times, int)
        return Detections(self.landmarks[rows], None if self.descriptors is None else self.descriptors[rows])

    @property
    def without_subject(self) -> int:
        """How many pictures have no landmark at all."""
        return int(np.isnan(self.landmarks).all(axis=(1, 2)).sum())

    @classmethod
    def joined(cls, parts: list["Detections"]) -> "Detections":
        """The detections of consecutive batches as one."""
        descriptors = [part.descriptors for part in parts if part.descriptors is not None]
        landmarks = np.concatenate([part.landmarks for part in parts])
        return cls(landmarks, np.concatenate(descriptors) if descriptors else None)


class Detector(Protocol):
    """Finds a subject's landmarks in pictures and, where it can, describes the subject's identity.

    Attributes:
        name: The detector's name, with its version and model files.
        subject: `faces` or `bodies`.
        points: How many landmarks it finds.
        identity: The name of the network behind the descriptors; None where there is none.
        no_identity: Why there is none.
    """

    name: str
    subject: str
    points: int
    identity: str | None
    no_identity: str

    def landmarks(self, frames: Frames) -> np.ndarray:
        """float (B, points, 2), x and y in pixels, or (B, points, 3) with z; NaN where a landmark is not found."""

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        """float (B, D); NaN where nobody is found. Not called where `identity` is None."""


_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
_IDENTITY = "dlib_face_recognition_resnet_model_v1.dat"


class DlibFaces:
    """The largest face of each picture, by dlib and the models of the package `face-recognition-models`.

    Raises InputError, naming the extra, where either is missing.
    """

    subject = "faces"
    points = 68
    no_identity = ""

    def __init__(self) -> None:
        folder = _models()
        try:
            import dlib
        except ImportError as error:
            raise _missing("dlib") from error
        self._dlib = dlib
        self._predictor: Any = None
        self._network: Any = None
        self.name = f"dlib {dlib.__version__}, largest face of its HOG detector, {_model(folder / _LANDMARKS)}"
        self.identity: str | None = f"dlib {dlib.__version__}, {_model(folder / _IDENTITY)}"

    def landmarks(self, frames: Frames) -> np.ndarray:
        if self._predictor is None:
            self._predictor = self._dlib.shape_predictor(str(_models() / _LANDMARKS))
        return np.stack([self._in_picture(picture) for picture in frames.pictures])

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        boxes = find_faces(picture)
        if not boxes:
            return np.full((self.points, 2), np.nan)
        box = boxes[0]
        corners = (round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1)
        shape = self._predictor(np.ascontiguousarray(picture), self._dlib.rectangle(*corners))
        return np.array([(point.x, point.y) for point in shape.parts()], np.float64)

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        if self._network is None:
            self._network = self._dlib.face_recognition_model_v1(str(_models() / _IDENTITY))
        return np.stack([self._describe(*pair) for pair in zip(frames.pictures, landmarks, strict=True)])

    def _describe(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        if not np.isfinite(points).all():
            return np.full(128, np.nan)
        parts = self._dlib.points()
        for x, y in points.round().astype(int).tolist():
            parts.append(self._dlib.point(x, y))
        # The box is not used: the landmarks say how the face is turned and cut out.
        shape = self._dlib.full_object_detection(self._dlib.rectangle(0, 0, 1, 1), parts)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(picture), shape))


def _models() -> Path:
    # Not imported: the package itself needs a module that setuptools no longer has.
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or found.origin is None:
        raise _missing("the package face-recognition-models")
    return Path(found.origin).parent / "models"


def _missing(what: str) -> InputError:
    return InputError(f"landmarks and identities of faces need {what}: pip install 'mtanimate[eval]'")


def _model(file: Path) -> str:
    return f"{file.name} (sha256 {sha256(file)[:8]})"


_BODIES_FOR = "finding bodies"
# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, left first, among BlazePose's 33.
_COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
# The network's estimate that a keypoint is in the picture and not hidden. MediaPipe, too, draws keypoints from here on.
_VISIBLE = 0.5


class MediaPipeBodies:
    """The most certain body of each picture, by the models in MediaPipe's wheel. No picture depends on another.

    Raises InputError, naming the extra, where the package or its models are missing.
    """

    subject = "bodies"
    points = len(_COCO)
    identity: str | None = None
    no_identity = "no network that tells bodies apart installs with its weights: give its features with --features"

    def __init__(self) -> None:
        file = model("pose_landmark/pose_landmark_full.tflite", _BODIES_FOR)
        with starting(_BODIES_FOR):
            import mediapipe
            from mediapipe.python.solutions.pose import Pose

            self._pose = Pose(static_image_mode=True, model_complexity=1)
            self._in_picture(np.zeros((256, 256, 3), np.uint8))
        self.name = f"mediapipe {mediapipe.__version__}, {file.name} (sha256 {sha256(file)[:8]})"

    def landmarks(self, frames: Frames) -> np.ndarray:
        return np.stack([self._in_picture(picture) for picture in frames.pictures])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        found = self._pose.process(np.ascontiguousarray(picture)).pose_landmarks
        if found is None:
            return np.full((self.points, 2), np.nan)
        points = [found.landmark[index] for index in _COCO]
        places = np.array([(point.x, point.y, point.visibility) for point in points], np.float64)
        size = np.array(picture.shape[1::-1])
        pixels = places[:, :2] * size - 0.5
        seen = (places[:, 2] >= _VISIBLE) & (pixels >= -0.5).all(axis=1) & (pixels <= size - 0.5).all(axis=1)
        return np.where(seen[:, None], pixels, np.nan)


class FaceAlignmentFaces(DlibFaces):
    """Landmarks of the largest face by the package `face-alignment`; descriptors by dlib, as in `DlibFaces`.

    The package downloads its networks (some 150 MB) at first use. Raises InputError where it is missing, naming
    the extra, or where its networks cannot be downloaded.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            import face_alignment
        except ImportError as error:
            raise InputError(
                "--detector face-alignment needs that package: pip install 'mtanimate[face-alignment]'"
            ) from error
        try:
            self._aligner = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, device="cpu")
        except OSError as error:
            raise InputError(f"face-alignment could not fetch its networks ({error}): connect this machine") from error
        self.name = f"face-alignment {importlib.metadata.version('face-alignment')}, largest face of its S3FD detector"

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        found = self._aligner.get_landmarks_from_image(picture) or []
        if not found:
            return np.full((self.points, 2), np.nan)
        return max(found, key=lambda points: float(np.prod(np.ptp(points, axis=0)))).astype(np.float64)


_FACES_FOR = "measuring gestures by the face mesh"


class FaceMesh:
    """The mesh of the most certain face of each picture. No picture depends on another, and each is processed twice.

    The face detector's box jitters, and the mesh that is found in it with it. The mesh frames the face better, so a
    second pass, framed by the first pass's mesh, has only two thirds of the noise. Tracking, which frames each picture
    by the previous one's mesh, would save the first pass. But it lags where the head moves, with three times the noise
    in the head's angles, and results would depend on other pictures. `benchmarks/mesh_noise.py` measures this.

    Raises InputError, naming the extra, where MediaPipe or its model is missing.
    """

    subject = "faces"
    points = 478
    identity: str | None = None
    no_identity = "the face mesh does not tell people apart"

    def __init__(self) -> None:
        file = model("face_landmark/face_landmark_with_attention.tflite", _FACES_FOR)
        with starting(_FACES_FOR):
            import mediapipe
            from mediapipe.python.solutions import face_mesh

            self._mesh = face_mesh.FaceMesh(
                refine_landmarks=True, max_num_faces=1, min_detection_confidence=0.3, min_tracking_confidence=0.3
            )
            self._in_picture(np.zeros((256, 256, 3), np.uint8))
        self.name = f"mediapipe {mediapipe.__version__}, {file.name} (sha256 {sha256(file)[:8]}), looked at twice"

    def landmarks(self, frames: Frames) -> np.ndarray:
        """float32 (B, 478, 3): x to the right, y down, z away from the camera, in pixels; NaN without a face."""
        return np.stack([self._in_picture(np.ascontiguousarray(picture)) for picture in frames.pictures])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        self._mesh.process(picture)
        found = self._mesh.process(picture).multi_face_landmarks
        self._mesh.process(
            np.zeros_like(picture)
        )  # an empty picture, so that the next one starts from the face detector
        if not found:
            return np.full((self.points, 3), np.nan, np.float32)
        height, width = picture.shape[:2]
        places = np.array([(point.x, point.y, point.z) for point in found[0].landmark])
        return (places * (width, height, width)).astype(np.float32)


class OpenPose:
    """Keypoints from OpenPose's JSON files, one per frame: FOLDER/truth/CLIP/*_keypoints.json, in the order of names.

    Of several people the one counts whose keypoints' confidences have the largest sum, as in the published figures on
    TaiChiHD and TED-talks. A keypoint of confidence 0 counts as not found.
    """

    subject = "bodies"
    identity: str | None = None
    no_identity = (
        "OpenPose finds keypoints but no identities: give features of a re-identification network with --features"
    )

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"--openpose {folder}: no such folder")
        self.folder = folder
        files = sorted(folder.glob("*/**/*_keypoints.json"))
        if not files:
            raise InputError(f"--openpose {folder}: no *_keypoints.json below its folders truth and generated")
        self.points = _points_in(files)
        self.name = f"OpenPose's JSON files, {self.points} keypoints"

    def landmarks(self, frames: Frames) -> np.ndarray:
        files = sorted(_side(self.folder, frames).glob("*_keypoints.json"))
        last = max(frames.numbers)
        if len(files) <= last:
            folder = _side(self.folder, frames)
            raise InputError(f"{folder} has {len(files)} *_keypoints.json: no file for frame {last}")
        return np.stack([self._read(files[number]) for number in frames.numbers])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _read(self, file: Path) -> np.ndarray:
        people = [person.reshape(-1, 3) for person in _people(file)]
        if not people:
            return np.full((self.points, 2), np.nan)
        surest = max(people, key=lambda person: float(person[:, 2].sum()))
        if len(surest) != self.points:
            raise InputError(f"{file} has {len(surest)} keypoints, others have {self.points}")
        return np.where(surest[:, 2:] > 0, surest[:, :2], np.nan)


class StoredFeatures:
    """Identity features of any network, from FOLDER/truth/CLIP.npy and FOLDER/generated/CLIP.npy.

    Each file is (T, D), one row per frame, NaN where nobody was found. Landmarks come from `detector`.
    """

    no_identity = ""

    def __init__(self, folder: Path, detector: Detector) -> None:
        if not folder.is_dir():
            raise InputError(f"--features {folder}: no such folder")
        first = min(folder.glob("truth/**/*.npy"), default=None)
        if first is None:
            raise InputError(f"--features {folder}: no .npy below its folder truth")
        self.folder = folder
        self._width = _features(first).shape[1]
        self.name, self.subject, self.points = detector.name, detector.subject, detector.points
        self.identity: str | None = "features from files"
        self.landmarks = detector.landmarks

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        file = _side(self.folder, frames).with_name(f"{Path(frames.clip).name}.npy")
        features = _features(file)
        if len(features) <= max(frames.numbers):
            raise InputError(f"{file} has {len(features)} rows: none for frame {max(frames.numbers)}")
        if features.shape[1] != self._width:
            raise InputError(f"{file} has {features.shape[1]} numbers a row, others have {self._width}")
        return features[list(frames.numbers)].astype(np.float64)


def _side(folder: Path, frames: Frames) -> Path:
    return folder / ("generated" if frames.generated else "truth") / frames.clip


def _points_in(files: list[Path]) -> int:
    """How many keypoints a person has in these files; where nobody is in them 25, which is OpenPose's default."""
    for file in files:
        people = _people(file)
        if people:
            return people[0].size // 3
    return 25


def _people(file: Path) -> list[np.ndarray]:
    try:
        people = read_json(file)["people"]
        return [np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3).ravel() for person in people]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not OpenPose's JSON ({type(error).__name__}: {error})") from error


def _features(file: Path) -> np.ndarray:
    """The numbers in an .npy file, (T, D)."""
    try:
        with open_regular(file) as opened:
            features = read_array(opened, file.stat().st_size)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} cannot be read as features: {error}") from error
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(f"{file} holds {features.dtype} {features.shape}: expected a row of numbers a frame")
    return features
