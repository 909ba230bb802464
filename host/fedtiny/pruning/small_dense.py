"""A small dense net of equal size: what the same number of weights does without any mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedtiny.pruning.method import Method, Public, Start
from fedtiny_export.errors import ConfigError
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class SmallDense(Method):
    """The same architecture, as wide as `density` of the full model's weights allows; trained by federated averaging.

    The control that papers on pruning leave out. It stores no positions, so its blob is smaller at the same count.
    """

    density: float
    name: str = "small-dense"

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        return Start(masks={})

    def width(self, own: int, weights: Callable[[int], int]) -> int:
        budget = self.density * weights(own)
        if weights(1) > budget:
            raise ConfigError(
                f"no net of this kind is as small as density {self.density}: with one channel it has {weights(1)} "
                f"weights. Choose a density of at least {weights(1) / weights(own):.4f}."
            )
        low, high = 1, own + 1  # weights(low) <= budget; high is too wide, or past what was asked for
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if weights(middle) <= budget else (low, middle)
        return low
