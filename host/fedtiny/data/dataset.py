"""What a data set is, once loaded, and where its files are looked for."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.errors import DataError

F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]
I64 = NDArray[np.int64]

DATA_DIR_VARIABLE = "FEDTINY_DATA"
DEV_PERCENT = 10  # of a node's samples: D~_k of the paper


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """x = (raw - mean[c]) / std[c] for channel c: what a deployed node must do with its raw samples."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, raw: NDArray[Any]) -> F32:
        """raw (n, C, H, W) of any numeric type -> float32 of the same shape."""
        shape = (1, -1, 1, 1)
        mean = np.asarray(self.mean, dtype=np.float32).reshape(shape)
        std = np.asarray(self.std, dtype=np.float32).reshape(shape)
        return np.ascontiguousarray((raw.astype(np.float32) - mean) / std)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """x float32 (n, C, H, W), normalised by constants that owe nothing to the test part; y uint16 (n,) < classes.

    `user_train`, `user_test`: whose sample it is, where the set knows its people.
    """

    name: str
    x_train: F32
    y_train: U16
    x_test: F32
    y_test: U16
    class_names: tuple[str, ...]
    normalisation: Normalisation
    user_train: I64 | None = None
    user_test: I64 | None = None

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        _, c, h, w = self.x_train.shape
        return c, h, w


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One node's training data, in a random order; the first `dev_count` samples are its development set."""

    x: F32
    y: U16
    dev_count: int

    @classmethod
    def of(cls, x: F32, y: U16) -> Shard:
        """A shard of samples already in a random order; its development set is a tenth of them, rounded up."""
        return cls(x=x, y=y, dev_count=math.ceil(len(y) * DEV_PERCENT / 100))


def places(data_dir: Path | None, folder: str, system: Sequence[str] = ()) -> list[Path]:
    """Folders to look in, in order: each given one, then its subfolder of the set's name, then the system's."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    roots = [data_dir] if data_dir is not None else []
    roots += [Path(named).expanduser()] if named else []
    return [p for root in roots for p in (root, root / folder)] + [Path(p) for p in system]


def missing(what: str, looked: Sequence[Path], how: str) -> DataError:
    """The error for a set that is nowhere; `how` is the command that gets it."""
    where = f" Looked in: {', '.join(str(p) for p in looked)}." if looked else ""
    return DataError(f"{what} is not on this machine.{where} Get it with: {how}")
