"""A token that must look at one patch: the figure is brightest there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import MODEL

from mtanimate.inspection.attention import AttentionPainter, AttentionView
from mtanimate.models.animator import Animator
from mtanimate.models.motion_transformer import sine_position

SIDE, PATCHES = 64, 4


def planted(patches):
    """A network of one layer and head, whose image tokens are their positions, and motion tokens those of `patches`."""
    torch.manual_seed(0)
    estimator = replace(MODEL.estimator, layers=1, heads=1)
    animator = Animator(replace(MODEL, estimator=estimator)).eval()
    network = animator.motion_estimator
    attention = network.layers[0].attention
    with torch.no_grad():
        for parameter in network.patch_embedding.parameters():
            parameter.zero_()
        network.motion_tokens.copy_(sine_position(PATCHES, PATCHES, network.config.dim)[patches])
        attention.query.weight.copy_(10 * torch.eye(network.config.dim))
        attention.key.weight.copy_(torch.eye(network.config.dim))
    return animator


def brightest(picture):
    """x, y of the middle of the brightest pixels, as parts of the picture's side."""
    light = picture.astype(int).sum(axis=2)
    rows, columns = np.nonzero(light == light.max())
    return (columns.mean() + 0.5) / picture.shape[1], (rows.mean() + 0.5) / picture.shape[0]


@pytest.mark.parametrize("patch", [0, 6, 13, 15])
def test_the_figures_peak_is_at_the_planted_patch(patch):
    patches = [(patch + further) % PATCHES**2 for further in (0, 3, 6, 9)]
    frame = torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    painter = AttentionPainter(planted(patches), frame, AttentionView([0]), tokens=[0, 1, 2, 3], matrices=False)
    (drawn,) = painter.paint(frame)
    sheet = painter.sheet.filled(painter.sheet.blank(), drawn)
    for token, where in enumerate(patches):
        left, top = painter.sheet.boxes[3 * token + 2]  # driving, mask, layer 1
        side = painter.table.side
        x, y = brightest(sheet[top : top + side, left : left + side])
        assert (int(x * PATCHES), int(y * PATCHES)) == (where % PATCHES, where // PATCHES)


def test_planted_motion_tokens_look_at_their_own_kind():
    """Tokens 1 and 3 stand at one place, 2 and 4 at others: 1 and 3 look at each other."""
    frame = torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    painter = AttentionPainter(planted([5, 0, 5, 15]), frame, AttentionView([0]), tokens=[0, 1, 2, 3], matrices=True)
    ((matrix,),) = painter.paint(frame)
    cell = matrix.shape[0] // 4
    light = matrix.astype(int).sum(axis=2)[cell // 2 :: cell, cell // 2 :: cell]
    assert light[0, 0] == light[0, 2] == light[2, 0] == light[2, 2]
    assert light[0, 0] > light[0, 1]
    assert light[0, 0] > light[0, 3]
