"""`cifar10`: Krizhevsky's 50,000 + 10,000 colour images, in the python version.

The set states no licence, so it is never shipped: the user points at the usual folder.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.data.dataset import U16, Dataset, Normalisation, missing, places
from fedtiny_export.errors import DataError

FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
HOW = (
    "curl -O https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz && tar xf cifar-10-python.tar.gz"
    "   (then give the folder that holds cifar-10-batches-py as --data-dir)"
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Per channel (R, G, B) over the 50,000 training images, pixels 0..255.
NORMALISATION = Normalisation(mean=(125.307, 122.950, 113.865), std=(62.993, 62.089, 66.705))


def load(data_dir: Path | None = None) -> Dataset:
    """x (50000 | 10000, 3, 32, 32). Raises DataError where a batch is missing or damaged."""
    looked = places(data_dir, FOLDER)
    folder = next((p for p in looked if all((p / f).is_file() for f in (*TRAIN, TEST))), None)
    if folder is None:
        raise missing(f"CIFAR-10 (a folder {FOLDER} with {TRAIN[0]} … {TEST})", looked, HOW)
    parts = [_batch(folder / name) for name in TRAIN]
    x_test, y_test = _batch(folder / TEST)
    return Dataset(
        name="cifar10",
        x_train=NORMALISATION(np.concatenate([x for x, _ in parts])),
        y_train=np.concatenate([y for _, y in parts]),
        x_test=NORMALISATION(x_test),
        y_test=y_test,
        class_names=CLASSES,
        normalisation=NORMALISATION,
    )


class _ArraysOnly(pickle.Unpickler):
    """A pickle can run anything; a batch needs only what rebuilds NumPy arrays."""

    _ALLOWED = frozenset(
        (module, name)
        for package in ("numpy.core", "numpy._core")
        for module, name in ((f"{package}.multiarray", "_reconstruct"), (f"{package}.numeric", "_frombuffer"))
    ) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _batch(path: Path) -> tuple[NDArray[np.uint8], U16]:
    """One pickled dictionary: data uint8 (n, 3072), channels first; labels, a list of n."""
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        x, y = np.asarray(fields["data"]), np.asarray(fields["labels"])
        if x.dtype != np.uint8 or x.shape[1:] != (3072,) or y.shape != x.shape[:1] or not (y >= 0).all():
            raise ValueError("its arrays do not have the shape of CIFAR-10")
        if y.max(initial=0) >= len(CLASSES):
            raise ValueError("it holds labels above 9")
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        raise DataError(f"{path} is no batch of CIFAR-10 ({error}). Get the set again: {HOW}") from error
    return x.reshape(-1, 3, 32, 32), y.astype(np.uint16)
