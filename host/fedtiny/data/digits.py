"""`digits`: 1,797 handwritten digits of 8x8 pixels (UCI optical recognition, BSD-3 through scikit-learn)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedtiny.data.dataset import Dataset, Normalisation, missing
from fedtiny.data.splits import hold_out

HOW = "pip install scikit-learn"
SPLIT_SEED = 0  # the set has no test part of its own: a stratified fifth, always the same

# Over the training part, pixels 0..16.
NORMALISATION = Normalisation(mean=(4.8888,), std=(6.0179,))


def load(_: Path | None = None) -> Dataset:
    """x (1433 | 364, 1, 8, 8). Raises DataError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing("the digits set", (), HOW) from error
    bunch = load_digits()
    y = np.asarray(bunch.target).astype(np.uint16)
    train, test = hold_out(y, fraction=0.2, seed=SPLIT_SEED)
    x = NORMALISATION(np.asarray(bunch.images)[:, None])
    return Dataset(
        name="digits",
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        class_names=tuple(str(d) for d in range(10)),
        normalisation=NORMALISATION,
    )
