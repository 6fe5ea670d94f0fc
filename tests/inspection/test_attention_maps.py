"""Attention taken out of the network, and what is made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import close, tensors
from release_models import CONFIGS, release_animator
from tiny import MODEL, tiny_animator

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import Config
from mtanimate.inference.prefetch import to_frames
from mtanimate.inspection.attention import AttentionView, show_attention
from mtanimate.inspection.attention_maps import (
    attention_rollout,
    estimate_with_attention,
    image_maps,
    part_matrices,
    part_rows,
)
from mtanimate.inspection.subject import Subject
from mtanimate.models.animator import Animator
from mtanimate.video import write_image


def pictures(count=2, seed=3):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["mtia_small", "mtia_small_noskip"])
def test_every_layer_of_the_release_network(name):
    io = tensors(f"{name}/io.npz")
    _, probabilities = estimate_with_attention(release_animator(name).motion_estimator, io["source"])
    close(probabilities[0], io["attention"][:, 0])


def test_raw_file_of_the_release_network(tmp_path):
    io = tensors("mtia_small/io.npz")
    write_checkpoint(tmp_path / "c.safetensors", release_animator("mtia_small"), Config(CONFIGS["mtia_small"]), {})
    write_image(tmp_path / "face.png", to_frames(io["source"])[0])
    subject = Subject.of(tmp_path / "face.png", crop="none")
    made = {"checkpoint": tmp_path / "c.safetensors", "raw": tmp_path / "raw.npz", "out": tmp_path / "figure.png"}
    result = show_attention(subject, **{name: str(path) for name, path in made.items()})
    assert result.tokens == [1, 2, 3, 4, 5]
    with np.load(tmp_path / "raw.npz", allow_pickle=False) as raw:
        assert raw["attention"].dtype == np.float32
        close(torch.from_numpy(raw["attention"][0]), io["attention"][:, 0])
        assert (raw["layers"].tolist(), raw["frames"].tolist()) == ([1, 2, 3], [0])
        assert (raw["parts"], raw["motion_tokens"]) == (5, 10)


def test_taking_it_out_changes_nothing():
    estimator = tiny_animator().eval().motion_estimator
    with torch.inference_mode():
        plain = estimator(pictures())
    motion, probabilities = estimate_with_attention(estimator, pictures())
    assert (motion.keypoints - plain.keypoints).abs().max() <= 1e-6
    assert (motion.affine - plain.affine).abs().max() <= 1e-6
    assert probabilities.shape == (2, 2, 4, 20, 20)  # 2 layers, 4 heads, 4 motion and 16 image tokens


@pytest.mark.parametrize("attention", ["unified", "separate"])
def test_rows_sum_to_one(attention):
    torch.manual_seed(0)
    estimator = replace(MODEL.estimator, attention=attention)
    animator = Animator(replace(MODEL, estimator=estimator)).eval()
    _, probabilities = estimate_with_attention(animator.motion_estimator, pictures())
    assert probabilities.shape[-2:] == ((20, 20) if attention == "unified" else (4, 20))
    close(probabilities.sum(dim=-1), torch.ones_like(probabilities[..., 0]))
    rows = part_rows(AttentionView([0, 1]).merged(probabilities), 4, 4)
    close(rows.sum(dim=-1), torch.ones(2, 2, 4))


def random_probabilities(*shape):
    return torch.softmax(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_rollout_written_out():
    """Half of each layer is the way around it; the product, the last layer leftmost (Abnar and Zuidema, 2020)."""
    probabilities = random_probabilities(1, 3, 2, 5, 5)
    rolled = attention_rollout(probabilities)
    expected = torch.eye(5)
    for layer in range(3):
        expected = (0.5 * probabilities[0, layer].mean(dim=0) + 0.5 * torch.eye(5)) @ expected
        close(rolled[0, layer], expected)
    close(rolled.sum(dim=-1), torch.ones(1, 3, 5))
    close(AttentionView([2], rollout=True).merged(AttentionView([2], rollout=True).raw(probabilities))[0, 0], expected)


def test_heads():
    raw = random_probabilities(1, 2, 3, 6, 6)
    mean, largest, each = (AttentionView([0, 1], heads).merged(raw) for heads in ("mean", "max", "each"))
    close(mean[0, 1], (raw[0, 1, 0] + raw[0, 1, 1] + raw[0, 1, 2]) / 3)
    close(largest[0, 1], torch.maximum(torch.maximum(raw[0, 1, 0], raw[0, 1, 1]), raw[0, 1, 2]))
    for layer in range(2):
        for head in range(3):
            index = AttentionView([0, 1], "each").titles(3).index(f"layer {layer + 1}\nhead {head + 1}")
            close(each[0, index], raw[0, layer, head])


def test_a_part_of_two_tokens_is_their_mean():
    """The release has tokens k and K + k for part k."""
    matrix = random_probabilities(4 + 4, 4 + 4)  # two parts, four motion tokens, four patches
    rows = part_rows(matrix, parts=2, motion_tokens=4)
    close(rows[1], (matrix[1] + matrix[3]) / 2)
    close(part_matrices(rows, parts=2, motion_tokens=4)[1, 0], 8 * (rows[1, 0] + rows[1, 2]) / 2)
    close(image_maps(rows, motion_tokens=4)[0], 8 * rows[0, 4:].view(2, 2))


def test_an_even_look_is_one_everywhere():
    even = torch.full((3, 3 + 16), 1 / 19)
    close(image_maps(even, 3), torch.ones(3, 4, 4))
    close(part_matrices(even, 3, 3), torch.ones(3, 3))
