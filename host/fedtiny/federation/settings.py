"""How a run trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedtiny.augment import Augment
from fedtiny.federation.tasks import Keep, Loss, Norm, Upload


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """`lr` falls to lr_final x lr in the last round when `lr_decay` is cosine.

    `quorum`: share of all nodes that must answer. `bn_refresh`: batch-norm statistics of the aggregated model from the
    nodes' last local epoch (`train`, no extra bytes; not for frozen norms) or measured on their development sets after
    each aggregation (`measure`); after the last round they are always measured, over all samples.
    """

    rounds: int
    epochs: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    lr_decay: Literal["constant", "cosine"] = "cosine"
    lr_final: float = 0.1
    micro_batch: int = 8
    norm: Norm = Norm.BATCH
    seed: int = 0
    quorum: float = 0.5
    bn_refresh: Literal["train", "measure"] = "measure"
    score_tile_bytes: int = 16384
    loss: Loss = "cross_entropy"
    keep: Keep = "f32"
    upload: Upload = "f32"
    lean: bool = False
    last_layers: int = 0
    augment: Augment = "none"

    def lr_at(self, round_number: int) -> float:
        """Learning rate of a round (first: 1)."""
        if self.lr_decay == "constant" or self.rounds == 1:
            return self.lr
        progress = (round_number - 1) / (self.rounds - 1)
        return self.lr * (self.lr_final + (1 - self.lr_final) * 0.5 * (1 + math.cos(math.pi * progress)))
