"""The C core as a Python module: the planner and the node of firmware/include/fedtiny.h, called in process.

The library is the firmware's own source compiled for this machine when the package is installed. Calls release the
interpreter's lock, so nodes on several threads run in parallel.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.compiled import compiled_part
from fedtiny_export.errors import CoreError, PlanError
from fedtiny_export.graph import F32
from fedtiny_export.masks import EncodedMask

MODES = {"infer": 1, "measure": 2, "train": 4, "score": 8}
NORMS = {"batch": 0, "frozen": 1}
KEEPS = {"f32": 0, "f16": 1, "int8": 2}
PARTS = ("node", "weights", "indices", "statistics", "work", "topk", "gradients", "momentum")
BANKS_MOST = 4
NOMEM = 4  # FT_ERR_NOMEM
HOLDS = {"by_cost": 0, "sparse": 1}
LOSSES = {"cross_entropy": 0, "mse": 1, "reconstruction": 2}


class _Config(ct.Structure):
    _fields_ = [
        ("micro_batch", ct.c_uint16),
        ("modes", ct.c_uint8),
        ("norm", ct.c_uint8),
        ("topk_max", ct.c_uint32),
        ("score_tile_bytes", ct.c_uint32),
        *((knob, ct.c_uint8) for knob in ("keep", "lean", "layerwise", "plain_sgd")),
        ("last_layers", ct.c_uint16),
        *((choice, ct.c_uint8) for choice in ("loss", "hold")),
    ]


class _Memory(ct.Structure):
    _fields_ = [
        *((kind, ct.c_uint32) for kind in ("node", "weights", "indices", "statistics", "gradients", "momentum")),
        *((kind, ct.c_uint32) for kind in ("activations", "scratch", "topk")),
        ("mode_work", ct.c_uint32 * 4),
        ("peak", ct.c_uint32),
        ("bank", ct.c_uint32 * BANKS_MOST),
    ]


class _Bank(ct.Structure):
    _fields_ = [("at", ct.c_void_p), ("bytes", ct.c_uint32)]


class _Spread(ct.Structure):
    _fields_ = [
        *((what, ct.c_uint32 * len(PARTS)) for what in ("bytes", "at")),
        ("bank", ct.c_uint8 * len(PARTS)),
        ("missing", ct.c_int),
    ]


class _Samples(ct.Structure):
    _fields_ = [("x", ct.c_void_p), ("labels", ct.c_void_p), ("size", ct.c_uint32)]


class _ScoreSum(ct.Structure):
    _fields_ = [("loss_sum", ct.c_double), ("correct", ct.c_uint32), ("samples", ct.c_uint32)]


class _TrainTask(ct.Structure):
    _fields_ = [
        ("epochs", ct.c_uint32),
        ("lr", ct.c_float),
        ("momentum", ct.c_float),
        ("weight_decay", ct.c_float),
        ("seed", ct.c_uint32),
    ]


class _TopKEntry(ct.Structure):
    _fields_ = [("index", ct.c_uint32), ("gradient", ct.c_float)]


def library_path() -> Path:
    return compiled_part("_core.so", "FEDTINY_CORE")


@cache
def _library() -> ct.CDLL:
    lib = ct.CDLL(str(library_path()))
    u32, ptr, size = ct.c_uint32, ct.c_void_p, ct.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ft_plan": (ct.c_int, [ptr, size, ct.POINTER(_Config), ptr, size, ct.POINTER(_Memory)]),
        "ft_plan_scratch": (size, [ptr, size]),
        "ft_plan_banks": (
            ct.c_int,
            [
                *(ptr, size, ct.POINTER(_Config), ct.POINTER(_Bank), u32, ptr, size),
                *(ct.POINTER(_Memory), ct.POINTER(_Spread)),
            ],
        ),
        "ft_load_banks": (
            ct.c_int,
            [ct.POINTER(_Bank), u32, ptr, size, ct.POINTER(_Config), ct.POINTER(ptr), ct.POINTER(_Spread)],
        ),
        "ft_load": (ct.c_int, [ptr, size, ptr, size, ct.POINTER(_Config), ct.POINTER(ptr), ct.POINTER(u32)]),
        "ft_samples_use": (ct.c_int, [ptr, ct.POINTER(_Samples), u32, u32]),
        **{f"ft_{what}": (u32, [ptr]) for what in ("input_size", "class_count", "layer_count", "value_count")},
        "ft_stat_count": (u32, [ptr]),
        "ft_trained_count": (u32, [ptr]),
        "ft_abi_hash": (u32, [ptr]),
        **{
            f"ft_{what}": (ct.c_int, [ptr, ptr, u32]) for what in ("set_values", "get_values", "set_stats", "get_stats")
        },
        "ft_set_mask": (ct.c_int, [ptr, u32, u32, ct.c_char_p, u32]),
        "ft_get_mask": (ct.c_int, [ptr, u32, ptr, u32, ct.POINTER(u32)]),
        "ft_set_thresholds": (ct.c_int, [ptr, ptr, u32]),
        "ft_measure_bn": (ct.c_int, [ptr, u32, ptr, u32, ct.POINTER(u32)]),
        "ft_evaluate": (ct.c_int, [ptr, u32, ct.POINTER(_ScoreSum)]),
        "ft_train": (ct.c_int, [ptr, ct.POINTER(_TrainTask), ct.POINTER(_ScoreSum), ptr, u32]),
        "ft_score": (ct.c_int, [ptr, u32, u32, u32, u32, ct.POINTER(ct.POINTER(_TopKEntry)), ct.POINTER(u32)]),
        "ft_infer": (ct.c_int, [ptr, ptr, ptr]),
        "ft_gradient": (ct.c_int, [ptr, u32, u32, ct.POINTER(ct.POINTER(ct.c_float)), ct.POINTER(ct.c_double)]),
        "ft_shuffle": (u32, [u32, u32, u32]),
        "ft_status_text": (ct.c_char_p, [ct.c_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


def status_text(status: int) -> str:
    """ft_status in words."""
    return str(_library().ft_status_text(status).decode())


def _check(status: int, what: str) -> None:
    if status:
        raise CoreError(f"{what}: {status_text(status)}", status)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes by kind; the kinds of work are those of the mode that takes most, so all add up to `peak` (fedtiny.h)."""

    node: int
    weights: int
    indices: int
    statistics: int
    gradients: int
    momentum: int
    activations: int
    scratch: int
    topk: int
    peak: int

    def by_kind(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "peak"}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the parts of a node's memory lie in banks (ft_spread).

    `parts`: contiguous bytes of each; parts of different modes may share bytes. `banks`: the number of the bank of
    each, and `used`: bytes that each bank must have. Where they do not fit both are empty, and `missing` is the part
    that finds no place however those busier than it are spread: "node" where no bank holds what planning takes.
    """

    parts: dict[str, int]
    banks: dict[str, int]
    used: tuple[int, ...]
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What a node will be asked to do (ft_config): `modes` of infer, measure, train, score.

    `loss`, of training and evaluation: cross_entropy, mse (from the one-hot label) or reconstruction (mse from the
    sample itself: as many outputs as inputs, labels unread, no hits); both mean over the outputs as torch's mse_loss.

    `hold`: how a layer with a mask lies in memory: by_cost, with all its weights where that is predicted to be quicker
    (the results are the same but for the sign of zeros), or sparse, with its live ones alone.

    `last_layers`: only the last so many layers, and what stands behind the first of them, train (0: all); the batch
    norms before them use their stored statistics while training.

    The others trade time, momentum or (keep alone) accuracy for memory. `keep`: f32, f16 or int8, the form of what
    training keeps for its backward pass. `lean`: convolutions row by row. `layerwise`: a layer's values change as soon
    as its gradient is known; then `gradient` is refused. `plain_sgd`: no momentum.
    """

    micro_batch: int = 1
    modes: Sequence[str] = ("infer",)
    norm: str = "batch"
    topk_max: int = 0
    score_tile_bytes: int = 0
    keep: str = "f32"
    lean: bool = False
    layerwise: bool = False
    plain_sgd: bool = False
    last_layers: int = 0
    loss: str = "cross_entropy"
    hold: str = "by_cost"

    def _struct(self) -> _Config:
        bits = sum(MODES[mode] for mode in self.modes)
        knobs = (KEEPS[self.keep], self.lean, self.layerwise, self.plain_sgd, self.last_layers)
        choices = (LOSSES[self.loss], HOLDS[self.hold])
        return _Config(self.micro_batch, bits, NORMS[self.norm], self.topk_max, self.score_tile_bytes, *knobs, *choices)


def _memory(struct: _Memory) -> Memory:
    return Memory(**{f.name: int(getattr(struct, f.name)) for f in fields(Memory)})


def plan(blob: bytes, config: NodeConfig) -> Memory:
    """What a node will take for this blob, from the node's own function. Raises PlanError where the core refuses it."""
    lib = _library()
    scratch = ct.create_string_buffer(max(8, int(lib.ft_plan_scratch(blob, len(blob)))))
    out = _Memory()
    status = lib.ft_plan(blob, len(blob), config._struct(), scratch, len(scratch), out)
    if status:
        raise PlanError(
            f"the node refuses this model: {status_text(status)}. Export it again, or see firmware/BLOB.md."
        )
    return _memory(out)


def plan_banks(blob: bytes, config: NodeConfig, banks: Sequence[int]) -> tuple[Memory, Spread]:
    """The same for banks of so many bytes each, the fastest first: as in `plan`, and where each part would lie.

    Raises PlanError where the core refuses the model for another reason than the banks' sizes.
    """
    lib = _library()
    scratch = ct.create_string_buffer(max(8, int(lib.ft_plan_scratch(blob, len(blob)))))
    out, spread = _Memory(), _Spread()
    sizes = (_Bank * len(banks))(*(_Bank(None, size) for size in banks))
    status = lib.ft_plan_banks(blob, len(blob), config._struct(), sizes, len(banks), scratch, len(scratch), out, spread)
    if status not in (0, NOMEM):
        raise PlanError(
            f"the node refuses this model: {status_text(status)}. Export it again, or see firmware/BLOB.md."
        )
    return _memory(out), _spread(spread, out, len(banks))


def _spread(struct: _Spread, memory: _Memory, banks: int) -> Spread:
    fits = struct.missing == len(PARTS)
    return Spread(
        parts=dict(zip(PARTS, struct.bytes, strict=True)),
        banks=dict(zip(PARTS, struct.bank, strict=True)) if fits else {},
        used=tuple(memory.bank[:banks]) if fits else (),
        missing=None if fits else PARTS[struct.missing],
    )


def shuffle(index: int, count: int, key: int) -> int:
    """ft_shuffle: the sample at place `index` of an epoch over `count` samples."""
    return int(_library().ft_shuffle(index, count, key & 0xFFFFFFFF))


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sum of the samples' losses, hits and samples."""

    loss_sum: float
    correct: int
    samples: int


def _address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


def _f32(array: NDArray[Any]) -> F32:
    return np.ascontiguousarray(array, np.float32)


class CoreNode:
    """One node in this process, in an arena of exactly the planned bytes: its own, or the start of the one given; or in
    `banks` of at most so many bytes each.

    Raises CoreError with the core's status. Not for two threads at once; several nodes on several threads are fine.
    """

    def __init__(
        self,
        blob: bytes,
        config: NodeConfig,
        arena: NDArray[np.uint64] | None = None,
        *,
        banks: Sequence[int] = (),
    ) -> None:
        self._lib = _library()
        self._blob = blob  # read in place by the node: kept as long as the node
        self.memory = plan(blob, config)
        self.spread: Spread | None = None
        sizes: tuple[int, ...] = (self.memory.peak,)
        if banks:
            self.memory, self.spread = plan_banks(blob, config, banks)
            if self.spread.missing:
                part, size = self.spread.missing, self.spread.parts[self.spread.missing]
                raise CoreError(f"no bank has {size} contiguous bytes left for {part}: give larger banks", NOMEM)
            sizes = self.spread.used
        self._banks = [np.zeros(size // 8 + 1, np.uint64) for size in sizes] if arena is None else [arena]
        if arena is not None and arena.nbytes < self.memory.peak:
            raise CoreError(f"an arena of {arena.nbytes} bytes: give the {self.memory.peak} that plan() names")
        self._samples: tuple[object, ...] = ()
        self._node = self._loaded(blob, config, sizes)

    def _loaded(self, blob: bytes, config: NodeConfig, sizes: Sequence[int]) -> ct.c_void_p:
        node = ct.c_void_p()
        memory = zip(map(_address, self._banks), sizes, strict=True)
        banks = (_Bank * len(sizes))(*(_Bank(at, size) for at, size in memory))
        status = self._lib.ft_load_banks(banks, len(sizes), blob, len(blob), config._struct(), node, None)
        _check(status, "loading a model")
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._node = ct.c_void_p()

    @property
    def input_size(self) -> int:
        """Floats of a sample."""
        return int(self._lib.ft_input_size(self._node))

    @property
    def value_count(self) -> int:
        return int(self._lib.ft_value_count(self._node))

    @property
    def trained_count(self) -> int:
        """Floats at the end of the values vector that train."""
        return int(self._lib.ft_trained_count(self._node))

    @property
    def stat_count(self) -> int:
        return int(self._lib.ft_stat_count(self._node))

    @property
    def abi_hash(self) -> int:
        return int(self._lib.ft_abi_hash(self._node))

    def set_samples(self, x: F32, labels: NDArray[np.uint16], dev_count: int) -> None:
        """x (n, C, H, W), labels (n,); the arrays are the node's storage: read, never copied or changed."""
        x, labels = _f32(x), np.ascontiguousarray(labels, np.uint16)
        samples = _Samples(_address(x), _address(labels), x[0].size if len(x) else 0)
        _check(self._lib.ft_samples_use(self._node, samples, len(x), dev_count), "taking samples")
        self._samples = (x, labels, samples)

    def _set_vector(self, name: str, vector: F32) -> None:
        vector = _f32(vector)
        _check(getattr(self._lib, f"ft_set_{name}")(self._node, _address(vector), vector.size), f"setting {name}")

    def _get_vector(self, name: str, count: int) -> F32:
        out = np.empty(count, np.float32)
        _check(getattr(self._lib, f"ft_get_{name}")(self._node, _address(out), count), f"reading {name}")
        return out

    def set_values(self, values: F32) -> None:
        self._set_vector("values", values)

    def values(self) -> F32:
        return self._get_vector("values", self.value_count)

    def set_stats(self, stats: F32) -> None:
        self._set_vector("stats", stats)

    def stats(self) -> F32:
        return self._get_vector("stats", self.stat_count)

    def set_mask(self, layer: int, mask: EncodedMask) -> None:
        _check(self._lib.ft_set_mask(self._node, layer, mask.code, mask.data, len(mask.data)), "changing a mask")

    def mask(self, layer: int) -> bytes:
        """As a bitmap. Raises CoreError for a dense layer."""
        needed = ct.c_uint32()
        status = self._lib.ft_get_mask(self._node, layer, None, 0, needed)
        if status == NOMEM:
            bitmap = ct.create_string_buffer(needed.value)
            status = self._lib.ft_get_mask(self._node, layer, bitmap, needed, needed)
        _check(status, "reading a mask")
        return bitmap.raw

    def set_thresholds(self, thresholds: F32) -> None:
        thresholds = _f32(thresholds)
        _check(self._lib.ft_set_thresholds(self._node, _address(thresholds), thresholds.size), "taking a candidate")

    def measure_bn(self, subset: int) -> tuple[F32, int]:
        """Moments vector and the samples it covers."""
        moments, samples = np.zeros(self.stat_count, np.float32), ct.c_uint32()
        _check(
            self._lib.ft_measure_bn(self._node, subset, _address(moments), moments.size, samples),
            "measuring batch norms",
        )
        return moments, samples.value

    def evaluate(self, subset: int) -> Tally:
        out = _ScoreSum()
        _check(self._lib.ft_evaluate(self._node, subset, out), "evaluating")
        return _tally(out)

    def train(self, *, epochs: int, lr: float, momentum: float, weight_decay: float, seed: int) -> tuple[Tally, F32]:
        """Local training; loss, hits and BN moments of the last epoch."""
        task, out = _TrainTask(epochs, lr, momentum, weight_decay, seed & 0xFFFFFFFF), _ScoreSum()
        moments = np.zeros(self.stat_count, np.float32)
        _check(self._lib.ft_train(self._node, task, out, _address(moments), moments.size), "training")
        return _tally(out), moments

    def score(self, layer: int, k: int, *, batches: int, seed: int) -> tuple[NDArray[np.uint32], F32]:
        """Flat indices (ascending) and mean gradients of the k largest among the layer's pruned weights."""
        entries, found = ct.POINTER(_TopKEntry)(), ct.c_uint32()
        status = self._lib.ft_score(self._node, layer, k, batches, seed & 0xFFFFFFFF, entries, found)
        _check(status, "scoring pruned weights")
        raw = ct.string_at(entries, 8 * found.value) if found.value else b""
        table = np.frombuffer(raw, [("index", "<u4"), ("gradient", "<f4")])
        return table["index"].astype(np.uint32), table["gradient"].astype(np.float32)

    def infer(self, x: F32) -> F32:
        """x (n, C, H, W) -> logits (n, classes)."""
        x = _f32(x)
        out = np.empty((len(x), int(self._lib.ft_class_count(self._node))), np.float32)
        if len(x) and x[0].size != self.input_size:
            raise CoreError("inference: samples of another size than the model's input")
        for sample, logits in zip(x, out, strict=True):
            _check(self._lib.ft_infer(self._node, _address(sample), _address(logits)), "inference")
        return out

    def gradient(self, first: int, count: int) -> tuple[F32, float]:
        """Gradient of one micro-batch's mean loss with respect to the values that train, and the loss sum."""
        gradients, loss = ct.POINTER(ct.c_float)(), ct.c_double()
        _check(self._lib.ft_gradient(self._node, first, count, gradients, loss), "computing a gradient")
        return np.ctypeslib.as_array(gradients, (self.trained_count,)).copy(), loss.value


def _tally(out: _ScoreSum) -> Tally:
    return Tally(loss_sum=out.loss_sum, correct=out.correct, samples=out.samples)
