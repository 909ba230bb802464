"""One model, the same samples, every runtime: how far they are apart, and at which layer they first part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.boards import Board
from fedtiny_export.errors import FedtinyError, FleetError
from fedtiny_export.infer import runtimes
from fedtiny_export.infer.load import Loaded
from fedtiny_export.infer.network import Array, Network
from fedtiny_export.infer.quantize import as_float, quantize, quantized_samples

TOLERANCE = 1e-4
"""Largest difference of float32 values, relative to the largest above 1: runtimes sum in different orders."""

TRACED = 4  # samples of which every activation is compared
ON_BOARD = 8  # samples that an emulated board computes

Results = dict[int, Array]
Run = Callable[..., Results]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output of one runtime against the reference. Errors are in the output's own unit, int8 dequantised.

    `bits`: whether all values are those of the definition. `near`: whether they are those of the reference, up to
    rounding where they are float. `parts_at`: the first operator whose values are not those of the definition,
    beyond rounding where they are float. `accuracy`: share of labels that are the largest value. `missing`: why it was
    not run; the other values are None then. `required`: whether that is a fault.
    """

    precision: str
    runtime: str
    against: str
    output: str
    samples: int = 0
    max_error: float | None = None
    rmse: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    bits: bool | None = None
    near: bool | None = None
    parts_at: str | None = None
    accuracy: float | None = None
    missing: str | None = None
    required: bool = False


@dataclass(frozen=True)
class Verification:
    """`good`: every runtime that ran computes what the reference does, float32 within rounding, int8 of C and LiteRT
    to the bit; and the C engine did run, on the board too where one was asked for.

    `lost`: points of accuracy that int8 costs against the float model, where there are labels and both.
    """

    model: str
    good: bool
    lost: float | None
    comparisons: list[Comparison] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        rows = [{k: v for k, v in asdict(row).items() if v is not None} for row in self.comparisons]
        return {"model": self.model, "good": self.good, "points_lost_to_int8": self.lost, "comparisons": rows}


def verify(
    loaded: Loaded,
    inputs: Sequence[Array],
    *,
    labels: NDArray[Any] | None = None,
    calibration: Sequence[Array] | None = None,
    board: Board | None = None,
    needed: bool = True,
) -> Verification:
    """Runs a model's samples through PyTorch (where fedtiny trained it), ONNX Runtime, LiteRT, the C engine here and
    in a board's emulator, float and int8.

    `inputs`: one array (n, *shape) per input, channels last, float32 or the network's int8. `calibration`: samples of
    the same form that make the int8 model of a float one; None: the model is taken as it is.
    `needed`: whether it is a fault if the board's emulator cannot run it.
    """
    network = loaded.network
    told: list[Comparison] = []
    x = quantized_samples(network, inputs)
    first = _Session(network, x, labels, board, "int8" if network.int8 else "float32", needed)
    if loaded.training is not None:
        first.reference("PyTorch", lambda: _in_torch(loaded, x))
    told += first.compared(loaded)
    lost = None
    if calibration is not None and not network.int8:
        small = quantize(network, calibration)
        second = _Session(small, quantized_samples(small, inputs), labels, board, "int8", needed)
        told.append(second.quantisation(first))
        told += second.compared(None)
        if labels is not None and first.accuracy is not None and second.accuracy is not None:
            lost = 100.0 * (first.accuracy - second.accuracy)
    return Verification(network.name, all(map(_good, told)), lost, told)


def _good(row: Comparison) -> bool:
    """What an int8 model loses, and how ONNX Runtime rounds it, is told and not judged."""
    if row.missing is not None:
        return not row.required
    if row.runtime == "quantised":
        return True
    if row.precision == "float32":
        return bool(row.near) and row.parts_at is None
    return bool(row.bits) or row.runtime == "ONNX Runtime"


class _Session:
    """One network and its samples; the numpy definition stands beside all."""

    def __init__(
        self,
        network: Network,
        x: Sequence[Array],
        labels: NDArray[Any] | None,
        board: Board | None,
        precision: str,
        needed: bool,
    ) -> None:
        self._network, self._x, self._labels, self._board = network, x, labels, board
        self.precision, self._needed = precision, needed
        self.definition = runtimes.in_numpy(network, x)
        self._traced = runtimes.in_numpy(network, [values[:TRACED] for values in x], every=True)
        self._reference, self._values = "numpy", self.definition

    @property
    def accuracy(self) -> float | None:
        return self._right(self.definition[self._network.outputs[0]])

    def reference(self, name: str, run: Callable[[], Results]) -> None:
        """What the others are compared with, in place of the definition."""
        self._reference, self._values = name, run()

    def compared(self, loaded: Loaded | None) -> list[Comparison]:
        """A row for each output of each runtime. `loaded`: the file that the network came from, run as it is."""
        file = loaded.data if loaded else None
        kind = loaded.path.suffix.lower() if loaded else ""
        rows = []
        if self._reference != "numpy":
            rows += self._rows("numpy", runtimes.in_numpy, len(self._x[0]))
        count = len(self._x[0])
        rows += self._rows("ONNX Runtime", runtimes.in_onnxruntime, count, file if kind == ".onnx" else None)
        rows += self._rows("LiteRT", runtimes.in_litert, count, file if kind == ".tflite" else None)
        rows += self._rows("C here", runtimes.in_engine, count, required=True)
        if self._board is not None:
            name = f"C on {self._board.name}"
            rows += self._rows(name, self._on_board, min(count, ON_BOARD), once=True, required=self._needed)
        return rows

    def quantisation(self, whole: _Session) -> Comparison:
        """The int8 definition against the reference of the float network."""
        output, target = self._network.outputs[0], whole._network.outputs[0]
        ours = as_float(self._network.tensors[output], self.definition[output])
        row = _measured(ours, as_float(whole._network.tensors[target], whole._values[target]))
        name = self._network.tensors[output].name
        return Comparison(
            precision="int8", runtime="quantised", against=f"float32 {whole._reference}", output=name,
            accuracy=self.accuracy, **row,
        )  # fmt: skip

    def _on_board(self, network: Network, x: Sequence[Array], *, every: bool = False) -> Results:
        from fedtiny.infer_boards import run_on_board
        from fedtiny_export.infer.pack import pack

        assert self._board is not None
        program = pack(network)
        try:
            done = run_on_board(program, x, self._board, every=every)
        except FleetError:  # all activations of one sample may be more than the board has room for
            done = run_on_board(program, x, self._board)
        return runtimes.named(program.network, network, done.outputs)

    def _rows(
        self,
        runtime: str,
        run: Run,
        count: int,
        file: bytes | None = None,
        *,
        once: bool = False,
        required: bool = False,
    ) -> list[Comparison]:
        """`once`: one run gives every activation of all samples, where a run is what takes the time."""
        x = [values[:count] for values in self._x]
        told = partial(Comparison, precision=self.precision, runtime=runtime, against=self._reference)
        names = [self._network.tensors[i].name for i in self._network.outputs]
        try:
            if once:
                found = traced = run(self._network, x, every=True)
            else:
                found = run(self._network, x, file=file) if file is not None else run(self._network, x)
                traced = run(self._network, [values[:TRACED] for values in x], every=True)
        except FedtinyError as error:
            why = str(error).strip().splitlines()
            return [told(output=name, missing=" ".join(why[:2]), required=required) for name in names]
        rows = []
        for index, name in zip(self._network.outputs, names, strict=True):
            tensor = self._network.tensors[index]
            wanted = self._values[index][:count]
            measured = _measured(as_float(tensor, found[index]), as_float(tensor, wanted))
            bits = bool(np.array_equal(found[index], self.definition[index][:count]))
            measured |= {"bits": bits, "near": _near(found[index], wanted)}
            parts = self._parts_at(traced)
            if parts is None and not bits and not _near(found[index], self.definition[index][:count]):
                parts = name
            rows.append(told(output=name, parts_at=parts, accuracy=self._right(found[index]), **measured))
        return rows

    def _parts_at(self, found: Results) -> str | None:
        """The first operator, in the order of computation, whose values are not those of the definition."""
        for op in self._network.operators:
            output = op.outputs[0]
            if output in found and not _near(found[output][:TRACED], self._traced[output]):
                return f"{op.kind.name} {self._network.tensors[output].name}"
        return None

    def _right(self, values: Array) -> float | None:
        if self._labels is None:
            return None
        return float((values.reshape(len(values), -1).argmax(axis=1) == self._labels[: len(values)]).mean())


def _near(ours: Array, theirs: Array) -> bool:
    if ours.dtype == np.int8:
        return bool(np.array_equal(ours, theirs))
    return bool(np.abs(ours - theirs).max(initial=0.0) <= TOLERANCE * max(1.0, float(np.abs(theirs).max(initial=0.0))))


def _measured(ours: Array, theirs: Array) -> dict[str, Any]:
    """Errors and agreement of values (n, ...)."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (ours, theirs))
    difference = a - b
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return {
        "samples": len(a),
        "max_error": float(np.abs(difference).max(initial=0.0)),
        "rmse": float(np.sqrt(np.square(difference).mean())),
        "cosine": float((a * b).sum() / norms) if norms else 1.0,
        "agreement": float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    }


def _in_torch(loaded: Loaded, x: Sequence[Array]) -> Results:
    from fedtiny_export.runtimes import torch_logits

    model = loaded.training
    assert model is not None
    shape = model.graph.tensors[model.graph.input].shape
    first = np.moveaxis(x[0][:, 0], -1, 1) if x[0].ndim == 5 else x[0]
    logits = torch_logits(model, np.ascontiguousarray(first).reshape(len(first), *shape))
    output = loaded.network.outputs[0]
    return {output: logits.reshape(len(logits), *loaded.network.tensors[output].shape)}
