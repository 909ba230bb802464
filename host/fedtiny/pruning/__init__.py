"""Federated pruning: which weights live. Knows nothing of nodes, rounds on the wire, or files."""

from fedtiny.pruning.catalog import BUILT_IN, make_method
from fedtiny.pruning.density import Allocation, Rule, allocate, layer_sizes
from fedtiny.pruning.fedavg import FedAvg
from fedtiny.pruning.fedtiny import FedTiny
from fedtiny.pruning.method import Answer, Change, Method, Probe, Public, Request, Seen, Start, Training
from fedtiny.pruning.pool import Masks, Pool, density_of, draw_pool, magnitude_masks
from fedtiny.pruning.progressive import Granularity, blocks, exchange, exchanged

__all__ = [
    "BUILT_IN",
    "Allocation",
    "Answer",
    "Change",
    "FedAvg",
    "FedTiny",
    "Granularity",
    "Masks",
    "Method",
    "Pool",
    "Probe",
    "Public",
    "Request",
    "Rule",
    "Seen",
    "Start",
    "Training",
    "allocate",
    "blocks",
    "density_of",
    "draw_pool",
    "exchange",
    "exchanged",
    "layer_sizes",
    "magnitude_masks",
    "make_method",
]
