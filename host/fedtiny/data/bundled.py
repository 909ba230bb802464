"""`fashion-mini`: a balanced 2,000 + 500 sample of Fashion-MNIST's own training and test parts; ships with the package.

Fashion-MNIST: Xiao, Rasul and Vollgraf (arXiv 1708.07747), MIT licence (fashion_mini.LICENSE.txt).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedtiny.data.dataset import Dataset, Normalisation
from fedtiny_export.errors import DataError

FILE = Path(__file__).with_name("fashion_mini.npz")

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Mean and standard deviation of the 60,000 training images, pixels 0..255. The mini set takes the same constants, so
# that a model moves from one to the other.
FASHION_NORMALISATION = Normalisation(mean=(72.9404,), std=(90.0212,))


def load(_: Path | None = None) -> Dataset:
    """x (2000 | 500, 1, 28, 28), 200 | 50 per class. Raises DataError for a damaged installation."""
    try:
        with np.load(FILE, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{FILE} cannot be read ({error}). Install fedtiny again.") from error
    return Dataset(
        name="fashion-mini",
        x_train=FASHION_NORMALISATION(arrays["x_train"][:, None]),
        y_train=arrays["y_train"].astype(np.uint16),
        x_test=FASHION_NORMALISATION(arrays["x_test"][:, None]),
        y_test=arrays["y_test"].astype(np.uint16),
        class_names=FASHION_CLASSES,
        normalisation=FASHION_NORMALISATION,
    )
