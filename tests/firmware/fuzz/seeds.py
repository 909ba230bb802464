"""Seeds for the fuzzer: valid blobs of a few hundred bytes that together have every operator, and scripts of calls.

python -m tests.firmware.fuzz.seeds FOLDER
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fedtiny_export.blob import write_blob
from fedtiny_export.torch_in import from_torch
from fedtiny_export.ws_conv import WSConv2d

from ..nets import random_masks

SHAPE = (2, 4, 3)


class Residual(nn.Module):
    """A tensor with three readers, and an add of a tensor to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = (self.norm(self.second(x)).relu() + x) + (x + x)
        out: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


NETS: dict[str, nn.Module] = {
    "conv": nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(12, 3)),
    "strided": nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, 2, 1, groups=4), nn.Flatten(), nn.Linear(16, 2)),
    "norms": nn.Sequential(
        nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU6(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(24, 3)
    ),
    "pools": nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.MaxPool2d(2, 1, 1), nn.AvgPool2d(2, 2, count_include_pad=False), nn.Flatten(),
        nn.Linear(12, 2), nn.ReLU(), nn.Linear(2, 2),
    ),
    "standardised": nn.Sequential(
        WSConv2d(2, 4, 2), nn.ReLU(), WSConv2d(4, 4, 3, 1, 1, groups=2), nn.Flatten(), nn.Linear(24, 2)
    ),
    "autoencoder": nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.Flatten()),
    "residual": Residual(),
}  # fmt: skip


def script(*calls: tuple[int, ...]) -> bytes:
    return bytes(byte for call in calls for byte in call)


DATA, VALUES, STATISTICS, MASK, THRESHOLDS, MEASURE, EVALUATE, TRAIN, SCORE, INFER, GRADIENT = range(11)
"""Calls by their number in target.c; the bytes that each takes stand there."""
NAN, HUGE = 248, 251
SCRIPTS = {
    "work": script(
        (DATA, 6, 3, 0, 0), (MEASURE, 0), (EVALUATE, 1), (TRAIN, 1, 1, 66, 80, 64, 3), (SCORE, 1, 5, 0, 2, 1),
        (INFER, 4), (GRADIENT, 0, 2), (TRAIN, 1, 2, 65, HUGE, 64, 3),
    ),
    "mask": script(
        (DATA, 6, 3, 0, 0), (THRESHOLDS, 2), (EVALUATE, 0), (VALUES, 0, 4), (MASK, 1, 2, 3, 0, 0, 1), (INFER, 0),
        (VALUES, 0, 4), (TRAIN, 1, 2, 70, 64, 64, 0),
    ),
    "states": script(
        (TRAIN, 1, 1, 66, 66, 66, 0), (DATA, 8, 2, 1, 5), (TRAIN, 1, 1, 66, 66, 66, 1), (EVALUATE, 1),
        (STATISTICS, 0, 2),
        (VALUES, 0, 1, 9, 0, NAN), (DATA, 7, 2, 2, 6), (TRAIN, 0, 2, 66, 66, 66, 1), (EVALUATE, 1),
    ),
}  # fmt: skip


RECONSTRUCTION = 2
# script, micro-batch, density, how activations are kept, lean | layerwise << 1 | plain SGD << 2, the loss, and layers
# that train; layers nearly full are held whole where the micro-batch is 1
SETTINGS = (
    ("work", 2, 0.5, 0, 0, 0, 0),
    ("mask", 2, 0.7, 2, 3, 1, 1),
    ("states", 2, 1.0, 1, 5, 0, 0),
    ("work", 1, 0.9, 0, 0, 0, 0),
    ("mask", 1, 0.9, 0, 2, 0, 2),
)


def write_seeds(folder: Path) -> list[Path]:
    written = []
    for name, module in NETS.items():
        model = from_torch(module, SHAPE)
        for number, (what, batch, density, keep, knobs, loss, last) in enumerate(SETTINGS):
            calls = SCRIPTS[what]
            masks = random_masks(model, density) if density < 1 else {}
            arrays = {key: array * masks.get(key, np.True_) for key, array in model.arrays.items()}
            blob = write_blob(model.graph, arrays, masks, names=False)
            loss = RECONSTRUCTION if name == "autoencoder" else loss
            head = struct.pack(
                "<BHBBHHBBBBB", 0, batch, 15, int(what == "mask"), 9, 64, keep, knobs, loss, last, len(calls)
            )
            path = folder / f"{name}-{number}-{what}.bin"
            path.write_bytes(head + calls + blob)
            written.append(path)
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for path in write_seeds(target):
        print(path)
