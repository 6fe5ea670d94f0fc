"""What the tests of files at URLs share."""

import random
import traceback
from contextlib import contextmanager

import pytest
from object_store import KEYS

from mtanimate.errors import MTAnimateError

CONTENT = random.Random(0).randbytes(12 << 20)  # two pieces, the last one not full
SMALL = CONTENT[:1000]
LARGE = 1 << 30
SECRET = "s3cr3t"
SIZES = pytest.mark.parametrize("content", [SMALL, CONTENT], ids=["one piece", "two pieces"])
NAMES = pytest.mark.parametrize("name", ["a b.mp4", "ü/ä.mp4", "100%.mp4", "a%20b.mp4", "a#b.mp4", "a+b&c.mp4", "€"])


def use(environment, monkeypatch):
    import s3fs

    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # it has connected already


@contextmanager
def told(kind=MTAnimateError):
    """The one error of the block: of this kind and no other, in one line, without a secret in it or behind it."""
    with pytest.raises(kind) as raised:
        yield raised
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    everything = "".join(traceback.format_exception(raised.value))
    assert SECRET not in everything
    assert not any(key in everything for key in KEYS.values())
