"""Batch statistics over all workers, so that eight of them train as one with the whole batch."""

import torch
from torch import Tensor, nn

from mtanimate.training.workers import Workers


def synchronise(network: nn.Module, workers: Workers) -> None:
    """Every batch normalisation in `network` takes its statistics from all workers; names stay as they are."""
    if workers.count == 1:
        return
    for name, module in network.named_children():
        if not isinstance(module, nn.BatchNorm2d):
            synchronise(module, workers)
        elif workers.device.type == "cuda":
            setattr(network, name, nn.SyncBatchNorm.convert_sync_batchnorm(module))
        else:
            setattr(network, name, _SyncBatchNorm.of(module, workers))


class _SyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for devices that it refuses: it works on GPUs only."""

    workers: Workers

    @staticmethod
    def of(norm: nn.BatchNorm2d, workers: Workers) -> "_SyncBatchNorm":
        converted = _SyncBatchNorm(norm.num_features, norm.eps, norm.momentum).to(workers.device)
        converted.load_state_dict(norm.state_dict())
        converted.workers = workers
        return converted.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        assert self.num_batches_tracked is not None  # always so here; the types allow more
        values = features.float()
        mean = self.workers.differentiable_mean(values.mean(dim=(0, 2, 3)))
        centred = values - mean[:, None, None]
        variance = self.workers.differentiable_mean(centred.square().mean(dim=(0, 2, 3)))
        count = self.workers.count * values[:, 0].numel()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)
