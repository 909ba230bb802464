"""FedMef (Huang et al., CVPR 2024, arXiv 2403.14737): what will be pruned is emptied first; activations are pruned."""

from __future__ import annotations

from dataclasses import dataclass

from fedtiny.pruning.fedtiny import FedTiny
from fedtiny.pruning.initial import Initial
from fedtiny.pruning.method import Training
from fedtiny.pruning.pool import Masks
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import Graph


@dataclass(frozen=True, kw_only=True)
class FedMef(FedTiny):
    """FedTiny's exchange from a random mask, with budget-aware extrusion and scaled activation pruning.

    In the `extrusion_rounds` up to an adjustment, that round among them, the weights of its block that will go, the
    smallest, are drawn to 0 by `penalty` ||w_low||^2 (section 3.2), at no less than `lr_floor` of the first learning
    rate. Always, a layer's weight gradient sees only the largest `activations` of its inputs (section 3.3); outputs and
    input gradients are exact. The paper pairs this with `model.norm = "standardised"`, convolutions whose weights are
    standardised, in place of batch norms.

    Deviations: candidates are off (a random mask, as in the paper's Figure 1), the blocks and shares are FedTiny's, and
    pruned activations are simulated: they change what is learned, while the memory reported is that of whole ones.
    """

    initial: Initial = "random"
    selection: bool = False
    extrusion_rounds: int = 1
    penalty: float = 0.01
    lr_floor: float = 0.1
    activations: float = 0.5
    name: str = "fedmef"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.activations <= 1.0 or self.penalty < 0 or self.extrusion_rounds < 0:
            raise ConfigError(
                f"activations = {self.activations}, penalty = {self.penalty}, extrusion_rounds = "
                f"{self.extrusion_rounds} of fedmef: choose 0 < activations <= 1, and the others 0 or more."
            )

    def training(self, graph: Graph, masks: Masks, *, round_number: int, adjustments: int) -> Training:
        coming = -(-round_number // self.delta_rounds) * self.delta_rounds
        if coming - round_number >= self.extrusion_rounds:
            return Training(activations=self.activations)
        ahead = self.request(graph, masks, round_number=coming, adjustments=adjustments)
        if ahead is None:
            return Training(activations=self.activations)
        return Training(extrude=ahead.k, penalty=self.penalty, lr_floor=self.lr_floor, activations=self.activations)

    def why_not(self, fleet: str) -> str | None:
        if fleet == "simulated" or (self.activations == 1.0 and self.extrusion_rounds == 0):
            return None
        return (
            "a node's training has neither the extrusion penalty nor pruned activations: only simulated nodes do "
            "(fleet.kind = simulated), or set pruning.options = {activations = 1.0, extrusion_rounds = 0}"
        )
