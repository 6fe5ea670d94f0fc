"""The terms of section 3.3: by hand and against stored numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from golden import close, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.config import TransformConfig
from mtanimate.geometry import coordinate_grid
from mtanimate.models.losses.motion import (
    Transform,
    concentration_loss,
    equivariance_affine,
    equivariance_keypoints,
    mask_loss,
    still_loss,
)
from mtanimate.models.motion import Motion


def identity_transform(batch=1):
    theta = torch.eye(2, 3).repeat(batch, 1, 1)
    return Transform(theta, torch.zeros(1, 2), torch.zeros(batch, 1))


def stored_transform(arrays, prefix):
    if f"{prefix}control_params" in arrays:
        weights, points = arrays[f"{prefix}control_params"], arrays[f"{prefix}control_points"]
        return Transform(arrays[f"{prefix}theta"], points.reshape(-1, 2), weights.flatten(1))
    theta = arrays[f"{prefix}theta"]
    return Transform(theta, torch.zeros(1, 2), torch.zeros(len(theta), 1))


def random_motion(batch, parts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(batch, parts, 2, generator=generator) * 2 - 1
    affine = torch.eye(2) + 0.2 * torch.randn(batch, parts, 2, 2, generator=generator)
    return Motion(keypoints, affine)


# By hand


def test_mask_loss_by_hand():
    masks = torch.tensor([0.75, 0.125, 0.125]).view(1, 3, 1, 1).expand(2, 3, 4, 6)
    assert mask_loss(masks).item() == pytest.approx(0.25 + 10 / 2 * 0.125)


def test_mask_loss_is_zero_for_pure_background():
    masks = torch.zeros(1, 4, 3, 3)
    masks[:, 0] = 1
    assert mask_loss(masks).item() == 0


def test_concentration_of_one_pixel_is_zero_and_of_two_corners_their_spread():
    masks = torch.zeros(2, 3, 3, 5)
    masks[:, 1, 1, 2] = 0.3  # part 1: all weight on one pixel
    masks[:, 2, 0, 0] = masks[:, 2, 2, 4] = 0.5  # part 2: corners (-1, -1) and (1, 1), mean (0, 0)
    assert concentration_loss(masks).item() == pytest.approx(2.0, rel=1e-6)


def test_concentration_ignores_how_strong_a_mask_is_and_the_background():
    masks = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    scaled = masks.clone()
    scaled[:, 1:] *= 0.125
    scaled[:, 0] = 0
    assert concentration_loss(scaled).item() == pytest.approx(concentration_loss(masks).item(), rel=1e-5)


def test_equivariance_is_zero_for_a_motion_that_follows():
    motion = random_motion(2, 4)
    assert equivariance_keypoints(motion, motion, identity_transform(2)).item() == 0
    assert equivariance_affine(motion, motion, identity_transform(2)).item() == pytest.approx(0, abs=1e-6)


def test_equivariance_by_hand():
    """T(c) = 2 c + (0.5, 0.1), on a motion that did not follow it."""
    transform = dataclasses.replace(identity_transform(), theta=torch.tensor([[[2.0, 0.0, 0.5], [0.0, 2.0, 0.1]]]))
    motion = Motion(torch.zeros(1, 1, 2), torch.eye(2).expand(1, 1, 2, 2))
    assert equivariance_keypoints(motion, motion, transform).item() == pytest.approx(0.3)
    # |I - 2 I| has the entries 1, 0, 0, 1.
    assert equivariance_affine(motion, motion, transform).item() == pytest.approx(0.5)


def test_transform_of_one_control_point_by_hand():
    transform = Transform(torch.eye(2, 3)[None], torch.tensor([[0.5, 0.0]]), torch.tensor([[0.1]]))
    # L1 distance to (0.5, 0): |0.2 - 0.5| + |-0.4 - 0| = 0.7
    radial = 0.1 * 0.7**2 * torch.log(torch.tensor(0.7 + 1e-6)).item()
    expected = torch.tensor([[[0.2 + radial, -0.4 + radial]]])
    close(transform.points(torch.tensor([[[0.2, -0.4]]])), expected, atol=1e-6)


def test_frame_reads_the_image_at_the_transformed_pixels():
    """Reflection keeps a constant picture constant; a mirror transform mirrors."""
    flat = torch.full((1, 3, 8, 8), 0.25)
    shifted = dataclasses.replace(identity_transform(), theta=torch.tensor([[[1.0, 0.0, 0.9], [0.0, 1.0, -0.7]]]))
    close(shifted.frame(flat), flat, atol=1e-6)
    mirror = dataclasses.replace(identity_transform(), theta=torch.tensor([[[-1.0, 0, 0], [0, 1.0, 0]]]))
    image = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(3))
    close(mirror.frame(image), identity_transform().frame(image).flip(-1), atol=1e-5)


def test_frame_is_reflected_at_the_border():
    """A shift by a whole picture's width shows its mirror image."""
    image = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(3))
    shift = dataclasses.replace(identity_transform(), theta=torch.tensor([[[1.0, 0, 2], [0, 1.0, 0]]]))
    mirror = dataclasses.replace(identity_transform(), theta=torch.tensor([[[-1.0, 0, 0], [0, 1.0, 0]]]))
    close(shift.frame(image), mirror.frame(image), atol=1e-5)


def test_random_transform_is_the_identity_without_noise_and_has_the_strength_asked_for():
    random = np.random.default_rng(0)
    still = Transform.random(random, TransformConfig(sigma_affine=0, sigma_tps=0)).repeat(3)
    coordinates = torch.rand(3, 7, 2) * 2 - 1
    close(still.points(coordinates), coordinates, atol=1e-6)
    noisy = [Transform.random(random, TransformConfig()) for _ in range(2000)]
    theta = torch.cat([transform.theta for transform in noisy])
    weights = torch.cat([transform.weights for transform in noisy])
    assert (theta - torch.eye(2, 3)).std().item() == pytest.approx(0.05, rel=0.05)
    assert weights.std().item() == pytest.approx(0.005, rel=0.05)
    assert weights.shape == (2000, 25)
    close(noisy[0].control_points[:6, 0], torch.tensor([-1, -0.5, 0, 0.5, 1, -1]), atol=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), strength=st.floats(0, 0.5))
def test_jacobian_equals_automatic_differentiation(seed, strength):
    torch.manual_seed(seed)
    config = TransformConfig(sigma_affine=strength, sigma_tps=strength)
    drawn = Transform.random(np.random.default_rng(seed), config).repeat(2)
    transform = Transform(drawn.theta.double(), drawn.control_points.double(), drawn.weights.double())
    coordinates = (torch.rand(2, 3, 2, dtype=torch.float64) * 2.4 - 1.2).requires_grad_()
    moved = transform.points(coordinates)
    rows = [torch.autograd.grad(moved[..., i].sum(), coordinates, retain_graph=True)[0] for i in (0, 1)]
    close(transform.jacobian(coordinates), torch.stack(rows, dim=-2), atol=1e-9)


# Against stored numbers


@pytest.mark.parametrize("prefix", ["tps_", "affine_"])
def test_transform(prefix):
    arrays = tensors("transform.npz")
    transform = stored_transform(arrays, prefix)
    close(transform.points(arrays["coordinates"]), arrays[f"{prefix}warped"])
    close(transform.jacobian(arrays["coordinates"]), arrays[f"{prefix}jacobian"])
    grid = coordinate_grid(64, 64, transform.theta).flatten(0, 1).expand(2, -1, -1)
    close(transform.points(grid), arrays[f"{prefix}grid"].flatten(1, 2))
    close(transform.frame(arrays["frame"]), arrays[f"{prefix}frame"])


def test_equivariance_of_stored_motions():
    arrays = tensors("transform.npz")
    motion, transformed = (
        Motion(arrays[f"loss_kp_{name}_value"], arrays[f"loss_kp_{name}_jacobian"])
        for name in ("driving", "transformed")
    )
    transform = stored_transform(arrays, "tps_")
    close(equivariance_keypoints(motion, transformed, transform), arrays["loss_equivariance_value"])
    close(equivariance_affine(motion, transformed, transform), arrays["loss_equivariance_jacobian"])


def test_a_background_that_moves_costs_how_far_it_moves():
    flow = (coordinate_grid(16, 16, torch.zeros(1)) + torch.tensor([0.1, 0.0])).expand(2, -1, -1, -1)
    people = torch.zeros(2, 2, 1, 64, 64)
    people[:, 0, :, 32:] = 1  # the lower half of the first pair, in both frames
    people[:, 1] = 1  # of the second it is not known
    assert still_loss(flow, people).item() == pytest.approx(0.1, abs=1e-5)
    only_below = flow.clone()
    only_below[:, :7] = coordinate_grid(16, 16, torch.zeros(1))[:7]
    assert still_loss(only_below, people).item() < 0.02
    assert still_loss(flow, torch.ones_like(people)).item() == 0
