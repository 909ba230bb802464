"""The C form of a model compiles cleanly, and on the real core it gives torch's logits."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtiny_export import BlobError, ExportError, GraphModule, from_torch, to_c, write_blob

FIRMWARE = Path(__file__).parents[2] / "firmware"
CC = shutil.which("gcc") or shutil.which("cc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-I", str(FIRMWARE / "include")]
ARENA_BYTES = 1 << 20

pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def written(folder: Path, net) -> GraphModule:
    """Writes net.h and net.c of a half pruned model and returns it in torch."""
    model = from_torch(net.module, net.input_shape)
    rng = np.random.default_rng(0)
    masks = {n: rng.random(model.arrays[n].shape) < 0.5 for n in model.graph.layer_names[1:-1]}
    for name, text in to_c(write_blob(model.graph, model.arrays, masks), "net", ARENA_BYTES).items():
        (folder / name).write_text(text)
    pruned = {n: a * masks.get(n, np.True_) for n, a in model.arrays.items()}
    return GraphModule(model.graph, pruned).eval()


def test_generated_sources_compile_without_a_warning(tmp_path, residual):
    written(tmp_path, residual)
    for flags in ([], ["-Os"], ["-Wpedantic"]):
        subprocess.run([CC, *STRICT, *flags, "-c", "net.c", "-o", "net.o"], cwd=tmp_path, check=True)


def test_the_header_says_what_a_caller_must_know(tmp_path, residual):
    written(tmp_path, residual)
    (tmp_path / "use.c").write_text(
        '#include "net.h"\n#include <stdio.h>\n'
        'int main(void) { printf("%u %u %u", NET_ARENA_BYTES, NET_INPUT_SIZE, NET_CLASSES); return 0; }\n'
    )
    subprocess.run([CC, *STRICT, "use.c", "-o", "use"], cwd=tmp_path, check=True)
    run = subprocess.run([str(tmp_path / "use")], check=True, capture_output=True, text=True)
    assert run.stdout == f"{ARENA_BYTES} {2 * 9 * 11} 4"


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """Objects of the core in plain C; the sources named `_vector` stand in for plain ones on one kind of machine."""
    folder = tmp_path_factory.mktemp("core")
    core = [*FIRMWARE.glob("src/*.c"), *FIRMWARE.glob("src/op/*.c")]  # inference needs no wire
    sources = [str(path) for path in core if not path.stem.endswith(("_vector", "_m4"))]
    flags = ["-O1", "-ffp-contract=off", "-fPIC", *STRICT, "-I", str(FIRMWARE / "src")]
    subprocess.run([CC, *flags, "-c", *sources], cwd=folder, check=True)
    return [str(p) for p in folder.glob("*.o")]


def test_the_core_gives_torchs_logits(tmp_path, net, core):
    reference = written(tmp_path, net)
    library = tmp_path / "net.so"
    subprocess.run([CC, *STRICT, "-shared", "-fPIC", "net.c", *core, "-o", str(library)], cwd=tmp_path, check=True)
    c = ctypes.CDLL(str(library))
    floats = np.ctypeslib.ndpointer(np.float32, flags="C")
    c.net_init.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)]
    c.net_infer.argtypes = [ctypes.c_void_p, floats, floats]
    arena = (ctypes.c_uint64 * (ARENA_BYTES // 8))()
    node = ctypes.c_void_p()
    assert c.net_init(arena, ARENA_BYTES, ctypes.byref(node)) == 0
    x = net.batch(4)
    with torch.no_grad():
        expected = reference(x).numpy()
    for sample, logits in zip(x.numpy(), expected, strict=True):
        found = np.zeros_like(logits)
        assert c.net_infer(node, np.ascontiguousarray(sample), found) == 0
        # Float32 sums in another order than torch's.
        np.testing.assert_allclose(found, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["", "2net", "my-net", "a b", "net;"])
def test_names_that_c_does_not_allow_are_refused(residual, name):
    model = from_torch(residual.module, residual.input_shape)
    with pytest.raises(ExportError, match="cannot name"):
        to_c(write_blob(model.graph, model.arrays, {}), name, 1)


def test_a_damaged_blob_is_refused():
    with pytest.raises(BlobError):
        to_c(b"FTM1", "net", 1)
