"""The network that a run begins with."""

from pathlib import Path

from mtanimate.checkpoints.file import mismatches, read_checkpoint
from mtanimate.config import Config
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator, outline
from mtanimate.models.hrnet import HRNet, load_imagenet_weights
from mtanimate.models.weights import read_weights


def make_animator(config: Config, init: Path | None) -> Animator:
    """A new network, or one that begins with another run's weights, whose settings may differ in what does not
    show in weights. Raises InputError where they do not fit."""
    outline(config.model)  # it says so where there would be too many weights to make
    animator = Animator(config.model)
    if config.training.backbone_file:
        file = Path(config.training.backbone_file).expanduser()
        weights = read_weights(file, "ImageNet weights of HRNet", "check --backbone-weights")
        backbone = animator.motion_estimator.backbone
        assert isinstance(backbone, HRNet)  # other estimators have none, and their configuration says so
        load_imagenet_weights(backbone, weights)
    if init is not None:
        weights = read_checkpoint(init).animator.state_dict()
        if config.model.dense_motion.residual:  # a network without one begins with none: it is zero at first
            fresh = animator.dense_motion.state_dict(prefix="dense_motion.")
            weights = {name: value for name, value in fresh.items() if ".residual." in name} | weights
        mismatched = mismatches(animator.state_dict(), weights)
        if mismatched:
            raise InputError(f"--init {init} has another network: {mismatched}")
        animator.load_state_dict(weights)
    return animator
