"""`fashion`: all 60,000 + 10,000 images of Fashion-MNIST, from the four IDX files that its authors publish."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtiny.data.bundled import FASHION_CLASSES, FASHION_NORMALISATION
from fedtiny.data.dataset import U16, Dataset, missing, places
from fedtiny_export.errors import DataError

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
SYSTEM = ("/usr/share/datasets/fashion-mnist",)  # Debian's dataset-fashion-mnist
HOW = "apt-get install dataset-fashion-mnist   (or put its four *.gz files into a folder and give it as --data-dir)"


def load(data_dir: Path | None = None) -> Dataset:
    """x (60000 | 10000, 1, 28, 28). Raises DataError where a file is missing or damaged."""
    looked = places(data_dir, "fashion-mnist", SYSTEM)
    folder = next((p for p in looked if all((p / f).is_file() for f in FILES)), None)
    if folder is None:
        raise missing("Fashion-MNIST", looked, HOW)
    x_train, y_train = _part(folder / FILES[0], folder / FILES[1])
    x_test, y_test = _part(folder / FILES[2], folder / FILES[3])
    return Dataset(
        name="fashion",
        x_train=FASHION_NORMALISATION(x_train),
        y_train=y_train,
        x_test=FASHION_NORMALISATION(x_test),
        y_test=y_test,
        class_names=FASHION_CLASSES,
        normalisation=FASHION_NORMALISATION,
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """A gzipped IDX file of bytes, in its own shape: u16 0, u8 type 8, u8 dimensions, big-endian u32 sizes, data."""
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Get it again: {HOW}") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path} is no IDX file of bytes. Get it again: {HOW}")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    data = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3])
    if data.size != int(np.prod(shape, dtype=object)):
        raise DataError(f"{path} holds {data.size} bytes where its header says {shape}. Get it again: {HOW}")
    return data.reshape(shape)


def _part(images: Path, labels: Path) -> tuple[NDArray[np.uint8], U16]:
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.shape != x.shape[:1] or y.max(initial=0) >= len(FASHION_CLASSES):
        raise DataError(f"{images} and {labels.name} do not belong together. Get them again: {HOW}")
    return x[:, None], y.astype(np.uint16)
