"""The server's few-shot pre-training on its public samples, before any node is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn


def pretrain(
    module: nn.Module,
    x: NDArray[np.float32],
    y: NDArray[np.uint16],
    *,
    epochs: int,
    batch: int = 16,
    loss: Literal["cross_entropy", "mse"] = "cross_entropy",
    lr: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> float:
    """Trains a torch module in place on x (n, C, H, W), y (n,); returns the mean loss of the last epoch.

    The samples must be held out from the training set, never from the test set (`data.public_split`). Batch norms'
    running statistics are measured over all of x at the end. The same seed gives the same bits: one thread,
    own generator. An incomplete last batch is left out unless it is the only one.
    """
    import torch

    from fedtiny_export.reference import sample_losses, single_thread

    images, labels = torch.from_numpy(np.array(x, np.float32)), torch.from_numpy(y.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    mean_loss = float("nan")
    with single_thread():
        module.train()
        for _ in range(epochs):
            losses = []
            order = torch.randperm(len(images), generator=generator)
            whole = len(order) // batch
            for chosen in torch.split(order[: whole * batch], batch) if whole else [order]:
                optimiser.zero_grad(set_to_none=True)
                mean = sample_losses(loss, module(images[chosen]), images[chosen], labels[chosen])[0].mean()
                mean.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append(mean.item())
            mean_loss = sum(losses) / len(losses)
        _measure_statistics(module, images)
        module.eval()
    return mean_loss


def _measure_statistics(module: nn.Module, images: object) -> None:
    """Sets running statistics to those of all images at once: few steps of a running average would leave them stale."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        module.train()
        module(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
