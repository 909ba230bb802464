"""A model that a command is given, the folder of a run or a file, with the samples that belong to it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.runfolder import BLOB, CONFIG, ONNX, RunFolder
from fedtiny_export.errors import ConfigError, DataError
from fedtiny_export.infer.load import Loaded, as_inputs, load_model
from fedtiny_export.infer.network import Array, Network
from fedtiny_export.infer.quantize import quantize

CALIBRATION = 128  # samples that scales are taken from

Labels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Source:
    """`run`: its folder, None of a file. `samples`: a file of one's own, None for the run's data."""

    loaded: Loaded
    run: RunFolder | None = None
    samples: Path | None = None
    data_dir: Path | None = None

    @property
    def name(self) -> str:
        return self.run.run_id if self.run else self.loaded.path.stem

    @property
    def c_name(self) -> str:
        """The name as C allows it."""
        name = re.sub(r"\W", "_", self.name, flags=re.ASCII)
        return name if name[:1].isalpha() else f"model_{name}"

    def onnx(self) -> bytes:
        """The ONNX file that the model has already, of a run or of its own; else none."""
        if self.run:
            return self.run.read(ONNX)
        return self.loaded.data if self.loaded.path.suffix.lower() == ".onnx" else b""

    def test(self, count: int) -> tuple[list[Array], Labels | None]:
        """The first `count` samples to test with, channels last, and their labels; random ones where there are none."""
        if self.samples is not None:
            x, y = _read(self.samples)
            return self._inputs(x[:count]), None if y is None else y[:count]
        if self.run is not None:
            data = self._dataset()
            return self._inputs(data.x_test[:count]), data.y_test[:count]
        random = np.random.default_rng(0)
        network = self.loaded.network
        tensors = [network.tensors[i] for i in network.inputs]
        return [
            random.integers(-128, 128, (min(count, 32), *t.shape)).astype(np.int8)
            if t.dtype == np.int8
            else random.normal(size=(min(count, 32), *t.shape)).astype(np.float32)
            for t in tensors
        ], None

    def calibration(self) -> list[Array] | None:
        """Samples to take scales from: of the file, or training samples of the run; None where there are neither."""
        if self.samples is not None:
            return self._inputs(_read(self.samples)[0][:CALIBRATION])
        if self.run is None:
            return None
        data = self._dataset()
        chosen = np.random.default_rng(0).permutation(len(data.x_train))[:CALIBRATION]
        return self._inputs(data.x_train[chosen])

    def network(self, *, int8: bool) -> Network:
        """The model as it is, or quantised. Raises ConfigError where that takes samples and there are none."""
        if not int8 or self.loaded.network.int8:
            return self.loaded.network
        calibration = self.calibration()
        if calibration is None:
            raise ConfigError("to quantise a float model takes samples that its scales come from: add --samples FILE.")
        return quantize(self.loaded.network, calibration)

    def _inputs(self, x: Array) -> list[Array]:
        return as_inputs(self.loaded.network, np.ascontiguousarray(x), first=self.loaded.channels_first)

    def _dataset(self) -> Any:
        from fedtiny.config import load_config
        from fedtiny.data import load_dataset

        assert self.run is not None
        config = load_config(self.run.file(CONFIG), {})
        return load_dataset(config.data.name, self.data_dir or config.data.data_dir)


def open_source(model: Path, *, samples: Path | None = None, data_dir: Path | None = None) -> Source:
    """Raises ConfigError for what is neither, and what the importers raise."""
    if model.is_dir() or not model.suffix:
        run = RunFolder.open(model)
        loaded = load_model(run.file(BLOB))
        return Source(replace(loaded, network=replace(loaded.network, name=run.run_id)), run, samples, data_dir)
    return Source(load_model(model), None, samples, data_dir)


def _read(path: Path) -> tuple[Array, Labels | None]:
    """x (n, ...) and y (n) of an .npz, or x of an .npy; integers other than int8 are read as numbers."""
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = {"x": found} if isinstance(found, np.ndarray) else {k: found[k] for k in ("x", "y") if k in found}
    except Exception as problem:  # whatever numpy finds wrong with the bytes
        raise DataError(f"cannot read samples from {path}: {problem}. Give an .npy, or an .npz with x and y.") from None
    if "x" not in arrays or arrays["x"].ndim < 2 or not len(arrays["x"]):
        raise DataError(f"{path} holds no samples x (n, ...). Give an .npy, or an .npz with x and, for labels, y.")
    x, y = arrays["x"], arrays.get("y")
    if y is not None and y.shape != (len(x),):
        raise DataError(f"{path} has {len(x)} samples and labels of the shape {y.shape}. Give one label for each.")
    if x.dtype.kind not in "fiub":
        raise DataError(f"{path} holds {x.dtype} instead of numbers. Give float32 samples.")
    return x if x.dtype == np.int8 else x.astype(np.float32), y
