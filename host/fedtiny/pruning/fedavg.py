"""Dense federated averaging (McMahan et al., AISTATS 2017): prunes nothing, and every other method's yardstick."""

from __future__ import annotations

from dataclasses import dataclass

from fedtiny.pruning.method import Method, Public, Start
from fedtiny_export.model import Model


@dataclass(frozen=True, kw_only=True)
class FedAvg(Method):
    name: str = "fedavg"

    @property
    def density(self) -> float:  # type: ignore[override]
        return 1.0

    def start(self, model: Model, *, seed: int, public: Public | None = None) -> Start:
        return Start(masks={})
