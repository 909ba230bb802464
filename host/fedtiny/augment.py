"""Samples varied for training, by the server or by simulated nodes; never for measuring. torch is imported inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Augment = Literal["none", "shift", "crop-flip"]
SHIFT = 2  # pixels or steps of time that `shift` moves a sample at most
CROP = 4  # pixels of padding that `crop-flip` crops from


def augmented(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Samples x (N, C, H, W), each varied on its own. shift: by up to two places along every axis longer than one, 0
    moving in. crop-flip: a crop of the map padded by four, flipped in half of the cases (He et al., 1512.03385)."""
    import torch
    from torch.nn.functional import pad

    if how == "none":
        return x
    n, _, height, width = x.shape
    reach = SHIFT if how == "shift" else CROP
    down, right = (reach if size > 1 else 0 for size in (height, width))
    padded = pad(x, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (n,), generator=generator)
    lefts = torch.randint(2 * right + 1, (n,), generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5 if how == "crop-flip" else torch.zeros(n, dtype=torch.bool)
    rows = tops[:, None] + torch.arange(height)
    columns = torch.arange(width).expand(n, width)
    columns = lefts[:, None] + torch.where(flips[:, None], columns.flip(1), columns)
    sample = torch.arange(n)[:, None, None]
    device = x.device
    picked = padded.movedim(1, -1)[sample.to(device), rows[:, :, None].to(device), columns[:, None, :].to(device)]
    return picked.movedim(-1, 1).contiguous()
