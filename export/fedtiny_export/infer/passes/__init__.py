"""Passes: each takes a network and gives one that computes the same, one file each."""

from __future__ import annotations

from fedtiny_export.infer.network import Network
from fedtiny_export.infer.passes.activations import fuse_activations
from fedtiny_export.infer.passes.affine import fold_affine
from fedtiny_export.infer.passes.constants import fold_constants
from fedtiny_export.infer.passes.layout import sink_transposes
from fedtiny_export.infer.passes.padding import fold_padding
from fedtiny_export.infer.passes.reshapes import merge_reshapes

TIDY = (fold_constants, sink_transposes, merge_reshapes, fold_padding, fold_affine, fuse_activations)


def tidy(network: Network) -> Network:
    """All passes that every importer wants."""
    for step in TIDY:
        network = step(network)
    return network


__all__ = [
    "fold_affine",
    "fold_constants",
    "fold_padding",
    "fuse_activations",
    "merge_reshapes",
    "sink_transposes",
    "tidy",
]
