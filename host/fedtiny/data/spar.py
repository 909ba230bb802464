"""`spar-watch`: ten people, seven shoulder exercises, a smart watch's accelerometer and gyroscope at 50 Hz.

Burns et al. (arXiv 1802.01489), as seglearn 1.2.5 carries it (BSD-3): 140 recordings, one per person, exercise and
side. A window is 128 steps (2.56 s); windows start every 64 steps, so neighbours share half of their samples.

Therefore the test part is no random fifth: it is the last fifth of each recording, and the one training window that
shares samples with it is left out. Every person and exercise is in both parts, and no measured sample is.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.data.dataset import F32, I64, U16, Dataset, Normalisation, missing, places
from fedtiny_export.errors import DataError

FILE = "spar_windows_6x128.npz"
HOW = f"pip install seglearn==1.2.5 pandas   (or put {FILE} into a folder and give it as --data-dir)"
CLASSES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
WINDOW = 128
STEP = 64
HELD_OUT = 0.2

# Per axis (ax, ay, az in g, wx, wy, wz in rad/s) over the training windows.
NORMALISATION = Normalisation(
    mean=(-0.0055, 0.3779, -0.1526, 0.0215, -0.0023, 0.0106),
    std=(0.8966, 0.4915, 0.5364, 0.9669, 2.4894, 1.0320),
)


def load(data_dir: Path | None = None) -> Dataset:
    """x (2745 | 720, 6, 1, 128), users 1 to 10. Raises DataError where the set is missing or damaged."""
    looked = places(data_dir, "spar-watch")
    file = next((p / FILE for p in looked if (p / FILE).is_file()), None)
    x, y, user = _from_npz(file) if file is not None else _from_seglearn(looked)
    train, test = _parts(x, user, y)
    maps = NORMALISATION(x[:, :, None, :])
    return Dataset(
        name="spar-watch",
        x_train=maps[train],
        y_train=y[train],
        x_test=maps[test],
        y_test=y[test],
        class_names=CLASSES,
        normalisation=NORMALISATION,
        user_train=user[train],
        user_test=user[test],
    )


def windows(recording: NDArray[Any]) -> F32:
    """recording (steps, axes) -> (windows, axes, WINDOW); what is left over at the end is dropped."""
    starts = range(0, len(recording) - WINDOW + 1, STEP)
    return np.stack([recording[a : a + WINDOW].T for a in starts]).astype(np.float32)


def _from_npz(file: Path) -> tuple[F32, U16, I64]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            x, y, user = arrays["x"].astype(np.float32), arrays["y"].astype(np.uint16), arrays["user"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{file} cannot be read ({error}). Get the set with: {HOW}") from error
    n = len(x)
    shapes = x.shape[1:] == (6, WINDOW) and y.shape == (n,) and user.shape == (n,)
    if not shapes or n == 0 or int(y.max()) >= len(CLASSES) or not np.isfinite(x).all():
        raise DataError(f"{file} holds no windows of shape (6, {WINDOW}) with y and user. Get the set with: {HOW}")
    return x, y, user


def _from_seglearn(looked: list[Path]) -> tuple[F32, U16, I64]:
    try:
        from seglearn.datasets import load_watch
    except ImportError as error:
        raise missing("the SPAR smart-watch set", looked, HOW) from error
    raw = load_watch()
    cut = [windows(recording) for recording in raw["X"]]
    counts = [len(c) for c in cut]
    y = np.repeat(np.asarray(raw["y"]), counts).astype(np.uint16)
    user = np.repeat(np.asarray(raw["subject"]), counts).astype(np.int64)
    return np.concatenate(cut), y, user


def _parts(x: F32, user: I64, y: U16) -> tuple[I64, I64]:
    """Training and test indices. A recording ends where a window's first half is not its forerunner's second half."""
    follows = (x[:-1, :, STEP:] == x[1:, :, :-STEP]).all(axis=(1, 2)) & (user[:-1] == user[1:]) & (y[:-1] == y[1:])
    bounds = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(x)]
    train: list[int] = []
    test: list[int] = []
    for first, end in pairwise(bounds):
        held = max(1, round(HELD_OUT * (end - first)))
        train += range(first, end - held - 1)
        test += range(end - held, end)
    return np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)
