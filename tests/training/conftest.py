"""Two tiny videos to train on."""

import pytest
import torch
from tiny import moving_square, write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, speed in (("one", 0.4), ("two", 0.25)):
        write_video(folder / f"{name}.mp4", moving_square(16, speed))
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """So that sums are added in the same order each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
