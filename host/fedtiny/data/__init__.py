"""Data sets and their splits over nodes. Imports neither torch nor what a data set's own package needs until asked."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from fedtiny.data import bundled, cifar10, digits, idx, npz, spar
from fedtiny.data.dataset import Dataset, Normalisation, Shard
from fedtiny.data.splits import ShardCounts, describe, hold_out, make_shards, public_split, split
from fedtiny_export.errors import DataError

__all__ = [
    "NAMES",
    "Dataset",
    "Normalisation",
    "Shard",
    "ShardCounts",
    "describe",
    "hold_out",
    "load_dataset",
    "make_shards",
    "public_split",
    "split",
]

_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "fashion-mini": bundled.load,
    "fashion": idx.load,
    "spar-watch": spar.load,
    "digits": digits.load,
    "cifar10": cifar10.load,
}
NAMES = tuple(_LOADERS)


def load_dataset(name: str, data_dir: str | Path | None = None) -> Dataset:
    """One of `NAMES`, or a path to a user's own `.npz` (see fedtiny.data.npz).

    Files are looked for in `data_dir`, then in the folder that the environment variable FEDTINY_DATA names, then
    where the system's package puts them. Raises DataError, with the command that gets a missing data set.
    """
    if name in _LOADERS:
        return _LOADERS[name](None if data_dir is None else Path(data_dir).expanduser())
    if name.endswith(".npz"):
        return npz.load(Path(name).expanduser())
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DataError(f"unknown data set {name!r}. {hint}Choose one of: {', '.join(NAMES)}, or give the path of an .npz.")
