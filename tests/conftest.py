import os
import signal
import sys
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "2")
# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))  # for `golden`
settings.register_profile("busy", deadline=None)  # machines are shared: no time limit for one example
settings.load_profile("busy")


def pytest_collection_modifyitems(items):
    """Exports first: one takes half a minute, for which the other processes would wait at the end."""
    items.sort(key=lambda item: "export" not in item.path.parts)
