"""Federated pruning: which weights live. Knows nothing of nodes, rounds on the wire, or files."""

from fedtiny.pruning.density import Allocation, Rule, allocate, layer_sizes
from fedtiny.pruning.fedavg import FedAvg
from fedtiny.pruning.fedtiny import FedTiny
from fedtiny.pruning.method import Change, Method, Request, Start
from fedtiny.pruning.pool import Masks, Pool, density_of, draw_pool, magnitude_masks
from fedtiny.pruning.progressive import Granularity, blocks, exchange, exchanged

__all__ = [
    "Allocation",
    "Change",
    "FedAvg",
    "FedTiny",
    "Granularity",
    "Masks",
    "Method",
    "Pool",
    "Request",
    "Rule",
    "Start",
    "allocate",
    "blocks",
    "density_of",
    "draw_pool",
    "exchange",
    "exchanged",
    "layer_sizes",
    "magnitude_masks",
]
