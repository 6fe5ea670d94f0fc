"""What all uses of MediaPipe share: its models, its chatter, and what is said where it is missing."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtanimate.errors import InputError


def model(name: str, purpose: str) -> Path:
    """The model's file inside MediaPipe's wheel. Raises InputError, naming the extra, where there is none."""
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        raise missing("the package mediapipe, which Python 3.10 to 3.12 have", purpose)
    file = Path(found.origin).parent / "modules" / name
    if not file.is_file():
        raise missing("a mediapipe that carries its models, 0.10.14 to 0.10.21", purpose)
    return file


@contextmanager
def starting(purpose: str) -> Iterator[None]:
    """While MediaPipe is imported and started: it greets with pages on stderr, out of C++; what goes wrong comes as an
    exception all the same. Raises InputError, naming the extra, where it cannot be used."""
    warnings.filterwarnings("ignore", "SymbolDatabase.GetPrototype", UserWarning)  # at every picture
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    except (ImportError, AttributeError) as error:  # AttributeError: protobuf is newer than it knows
        raise missing(f"a whole mediapipe ({error})", purpose) from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def missing(what: str, purpose: str) -> InputError:
    return InputError(f"{purpose} needs {what}: pip install 'mtanimate[mediapipe]'")
