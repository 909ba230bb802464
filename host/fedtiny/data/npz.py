"""A user's own `.npz`: samples `x`, labels `y` and optionally `user`; optionally `x_test`, `y_test` and `user_test`.

x: (n, C, H, W), or channels last for uint8 images; (n, H, W) is one channel, (n, T) a series of one channel.
y: (n,) whole numbers from 0, or texts. `classes`: names, optional. user: (n,) whole numbers or texts, optional.
Without x_test a stratified fifth is held out, always the same one; windows of one recording that overlap should
therefore come with a test part of their own. Each channel is normalised by mean and deviation of the training part.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.data.dataset import I64, U16, Dataset, Normalisation
from fedtiny.data.splits import hold_out
from fedtiny_export.errors import DataError

SPLIT_SEED = 0
KEYS = ("x", "y", "user", "x_test", "y_test", "user_test", "classes")
Arrays = dict[str, NDArray[Any]]


def load(path: Path) -> Dataset:
    """Raises DataError that names the array and what is wrong with it."""
    arrays = _read(path)
    names = _class_names(arrays, path)
    x, y = _samples(arrays, "x", path), _labels(arrays, "y", len(arrays["x"]), names, path)
    user = _users(arrays, "user", len(x), path)
    if "x_test" in arrays:
        x_test, y_test = _samples(arrays, "x_test", path), _labels(arrays, "y_test", len(arrays["x_test"]), names, path)
        user_test = _users(arrays, "user_test", len(x_test), path)
        if x_test.shape[1:] != x.shape[1:]:
            raise DataError(f"{path}: x_test holds samples of {x_test.shape[1:]}, x of {x.shape[1:]}. Give both alike.")
    else:
        train, test = hold_out(y, fraction=0.2, seed=SPLIT_SEED)
        x, x_test, y, y_test = x[train], x[test], y[train], y[test]
        user, user_test = (None, None) if user is None else (user[train], user[test])
    if len(y_test) == 0:
        raise DataError(f"{path}: no sample is left to test with. Give more samples per class, or x_test and y_test.")
    normalisation = _measure(x)
    return Dataset(
        name=path.stem,
        x_train=normalisation(x),
        y_train=y,
        x_test=normalisation(x_test),
        y_test=y_test,
        class_names=names,
        normalisation=normalisation,
        user_train=user,
        user_test=user_test,
    )


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise DataError(f"there is no file {path}. Write one with numpy.savez(path, x=..., y=...).")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            arrays = {key: np.asarray(file[key]) for key in KEYS if key in file.files}
            found = ", ".join(file.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Write it with numpy.savez(path, x=..., y=...).") from error
    absent = [key for key in ("x", "y") if key not in arrays]
    absent += ["y_test"] if "x_test" in arrays and "y_test" not in arrays else []
    if absent:
        raise DataError(f"{path} lacks {' and '.join(absent)}; it holds {found}. Save it with: {', '.join(KEYS)}.")
    return arrays


def _samples(arrays: Arrays, key: str, path: Path) -> NDArray[Any]:
    x = arrays[key]
    if x.dtype.kind not in "fiub" or x.size == 0 or not np.isfinite(x).all():
        raise DataError(f"{path}: {key} must hold finite numbers and at least one sample. Clean it first.")
    if x.ndim == 2:
        return x[:, None, None, :]
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise DataError(f"{path}: {key} has the shape {x.shape}. Give (n, C, H, W), (n, H, W) or (n, T).")
    if x.dtype == np.uint8 and x.shape[3] in (1, 3) and x.shape[1] > 4:
        return np.moveaxis(x, 3, 1)
    return x


def _class_names(arrays: Arrays, path: Path) -> tuple[str, ...]:
    y = arrays["y"]
    if y.dtype.kind in "US":
        return tuple(str(v) for v in np.unique(y.astype(str)))
    if y.dtype.kind not in "iu" or y.ndim != 1 or y.size == 0 or y.min() < 0 or y.max() > 65535:
        raise DataError(f"{path}: y must hold one whole number from 0 to 65535, or one text, per sample.")
    if "classes" in arrays:
        names = tuple(str(v) for v in arrays["classes"].astype(str).reshape(-1))
        if len(names) <= int(y.max()):
            raise DataError(f"{path}: {len(names)} names in classes, but y goes up to {int(y.max())}. Name them all.")
        return names
    return tuple(str(i) for i in range(int(y.max()) + 1))


def _labels(arrays: Arrays, key: str, count: int, names: tuple[str, ...], path: Path) -> U16:
    y = arrays[key]
    if y.shape != (count,):
        raise DataError(f"{path}: {key} has the shape {y.shape} for {count} samples. Give one label per sample.")
    if y.dtype.kind in "US":
        number = {name: i for i, name in enumerate(names)}
        unknown = sorted(set(y.astype(str).tolist()) - set(names))
        if unknown:
            raise DataError(f"{path}: {key} holds classes that y lacks: {', '.join(unknown)}. Train with them as well.")
        return np.asarray([number[str(v)] for v in y.astype(str)], dtype=np.uint16)
    if y.dtype.kind not in "iu" or y.min(initial=0) < 0 or y.max(initial=0) >= len(names):
        raise DataError(f"{path}: {key} must hold whole numbers from 0 to {len(names) - 1}. Number the classes like y.")
    return y.astype(np.uint16)


def _users(arrays: Arrays, key: str, count: int, path: Path) -> I64 | None:
    if key not in arrays:
        return None
    user = arrays[key]
    if user.shape != (count,) or user.dtype.kind not in "iuUS":
        raise DataError(f"{path}: {key} must hold one whole number or text per sample ({count}). Save it so.")
    if user.dtype.kind in "US":
        return np.unique(user, return_inverse=True)[1].astype(np.int64)
    return user.astype(np.int64)


def _measure(x: NDArray[Any]) -> Normalisation:
    """Per channel, in float64; a channel that never changes is only shifted."""
    mean = x.mean(axis=(0, 2, 3), dtype=np.float64)
    std = x.std(axis=(0, 2, 3), dtype=np.float64)
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(np.where(std > 0, std, 1.0).tolist()))
