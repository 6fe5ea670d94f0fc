"""What goes to a device and comes back is what it was."""

import numpy as np
import pytest
import torch

from mtanimate.inference.prefetch import download, side_stream, synchronize, to_frames, upload

DEVICES = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_there_and_back(device):
    frames = torch.randint(0, 256, (5, 3, 40, 30), dtype=torch.uint8)
    there = upload(frames, device)
    assert there.device.type == device.type
    assert torch.equal(download(there), frames)
    with side_stream(device):
        pictures = to_frames(there.float() / 255)
        synchronize(device)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, frames.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_uploads_do_not_write_over_what_is_being_read(device):
    """Each batch is freed while the device may still compute with it, and the next may get its memory."""
    sums = []
    for value in range(20):
        there = upload(torch.full((8, 3, 256, 256), value, dtype=torch.uint8), device)
        sums.append(sum(there.float().mean() for _ in range(20)))
        del there
    assert [round(float(one) / 20) for one in sums] == list(range(20))
