"""The inference engine's C compiled for this computer, as a Python module: the kernels that run on a board."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Sequence
from functools import cache

import numpy as np

from fedtiny_export.compiled import compiled_part
from fedtiny_export.errors import BlobError, CoreError
from fedtiny_export.infer.network import Array, Network, Tensor
from fedtiny_export.infer.program import Program

STATUS = (
    "ok",
    "no inference program, or a damaged one",
    "of a newer fedtiny",
    "more than this build has",
    "misaligned",
)


class _Program(ct.Structure):
    _fields_ = [("blob", ct.c_void_p), *((name, ct.c_uint32) for name in ("ops", "inputs", "outputs", "arena_bytes"))]


@cache
def _library() -> ct.CDLL:
    lib = ct.CDLL(str(compiled_part("_infer.so", "FEDTINY_INFER")))
    lib.fti_load.restype, lib.fti_load.argtypes = ct.c_int, [ct.POINTER(_Program), ct.c_void_p, ct.c_size_t]
    lib.fti_run.restype, lib.fti_run.argtypes = None, [ct.POINTER(_Program), ct.c_void_p]
    lib.fti_run_op.restype, lib.fti_run_op.argtypes = None, [ct.POINTER(_Program), ct.c_void_p, ct.c_uint32]
    return lib


def run(program: Program, inputs: Sequence[Array], *, every: bool = False) -> dict[int, Array]:
    """Runs samples one by one. `inputs`: for each of the network's inputs (n, *shape) in its dtype; results in the same
    form by tensor: the outputs', or, with `every`, every activation's that the program computes.

    Raises BlobError for a program that the engine refuses, CoreError for inputs of a wrong shape or type.
    """
    network, samples = program.network, checked_inputs(program.network, inputs)
    lib, loaded = _library(), _Program()
    blob = _aligned(len(program.blob))
    blob[:] = np.frombuffer(program.blob, np.uint8)
    status = lib.fti_load(ct.byref(loaded), blob.ctypes.data, len(blob))
    if status:
        raise BlobError(f"the inference engine refused the program: {STATUS[status]}. Pack the network again.")
    arena = _aligned(program.arena_bytes)
    wanted = wanted_tensors(program, every=every)
    results = {t: np.zeros((samples, *network.tensors[t].shape), network.tensors[t].dtype) for t in wanted}
    after: dict[int, list[int]] = {}
    for t in wanted:
        after.setdefault(program.places[t].made, []).append(t)
    for sample in range(samples):
        for t, values in zip(network.inputs, inputs, strict=True):
            view(arena, program, t)[...] = values[sample].reshape(-1)
        for step in range(-1, len(program.steps)):
            if step >= 0:
                lib.fti_run_op(ct.byref(loaded), arena.ctypes.data, step)
            for t in after.get(step, ()):
                results[t][sample] = view(arena, program, t).reshape(results[t].shape[1:])
    return results


def wanted_tensors(program: Program, *, every: bool) -> list[int]:
    """Those that a run returns. An output lies in the arena to the end, so it may be read as soon as it is made."""
    network = program.network
    if not every:
        return list(network.outputs)
    return [t for t in program.places if network.tensors[t].data is None]


def checked_inputs(network: Network, inputs: Sequence[Array]) -> int:
    """The number of samples. Raises CoreError where an array is not what the network takes."""
    if len(inputs) != len(network.inputs):
        raise CoreError(f"the network has {len(network.inputs)} inputs, not {len(inputs)}. Give one array for each.")
    counts = set()
    for t, values in zip(network.inputs, inputs, strict=True):
        tensor = network.tensors[t]
        if values.dtype != tensor.dtype or values.shape[1:] != tensor.shape:
            raise CoreError(
                f"input '{tensor.name}' takes {tensor.dtype} of shape (samples, {_sides(tensor)}), "
                f"not {values.dtype} of {values.shape}."
            )
        counts.add(len(values))
    if len(counts) != 1:
        raise CoreError("the inputs have different numbers of samples. Give as many of each.")
    return counts.pop()


def _sides(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape))


def view(arena: Array, program: Program, t: int) -> Array:
    """A tensor's elements in the arena's bytes."""
    tensor, at = program.network.tensors[t], program.places[t].at
    found: Array = arena[at : at + tensor.nbytes].view(tensor.dtype)
    return found


def _aligned(size: int) -> Array:
    """Bytes that begin at a multiple of 8."""
    return np.zeros(max(1, -(-size // 8)), np.uint64).view(np.uint8)[:size]
