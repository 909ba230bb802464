"""The arrows of DESIGN.md: which part may know which, by the syntax tree of Python and the include lines of C."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"fedtiny": ROOT / "host" / "fedtiny", "fedtiny_export": ROOT / "export" / "fedtiny_export"}

# A part of fedtiny, and the parts it may import. What stands alone in host/fedtiny is a part by its own name.
ALLOWED = {
    "data": set[str](),
    "models": set[str](),
    "augment": set[str](),
    "pruning": {"augment"},
    "pretrain": {"data"},
    "federation": {"pruning", "data", "augment"},
    "link": set[str](),
    "fleet": {"augment", "federation", "pruning", "link", "boards", "images"},
    "config": {"pruning"},
    "boards": set[str](),
    "emulation": {"boards"},
    "images": {"boards", "emulation"},
    "infer_boards": {"boards", "emulation"},
    "verify": {"boards", "infer_boards"},
    "modelsource": {"config", "data", "runfolder"},
    "modelplan": {"boards", "flash", "fleet", "modelsource"},
    "runfolder": set[str](),
    "journal": {"federation", "pruning"},
    "report": {"runfolder"},
    "result": {"federation", "fleet", "data", "config", "experiment"},
    "experiment": {
        "boards", "config", "data", "models", "pruning", "pretrain", "federation", "fleet",
        "journal", "runfolder", "report", "result",
    },
    "progress": {"config", "federation"},
    "flash": {"boards", "images", "link", "fleet", "federation", "pruning", "config", "runfolder"},
    "newboard": {"boards"},
    "doctor": {"boards", "emulation", "flash"},
    "study": {"config", "experiment", "result", "report"},
    "testing": {"config", "experiment", "federation", "fleet"},
    "commands": {
        "boards", "doctor", "flash", "fleet", "link", "modelplan", "modelsource", "newboard", "report", "study",
        "verify",
    },
    "bench": {"boards", "emulation", "infer_boards", "models", "federation", "fleet", "link"},
    "__main__": {"cli"},
    "cli": {
        "bench", "commands", "config", "experiment", "fleet", "journal", "progress", "report", "result", "runfolder",
        "__init__",
    },
    "__init__": {"config", "experiment"},
}  # fmt: skip

HEAVY = {
    "torch", "onnx", "onnxruntime", "aiomqtt", "cbor2", "cobs", "cryptography", "paho", "serial",
}  # fmt: skip
QUICK = {
    "__init__",
    "cli",
    "commands",
    "config",
    "progress",
    "runfolder",
    "federation",
    "pruning",
    "data",
    "journal",
    "experiment",
}

# Lower knows nothing of higher: op <- train, bn, topk, mask <- node <- port. The wire asks the core by its public
# header; it shares bytes and packing with it and nothing else, and the core knows nothing of the wire.
BASE = {"bytes", "num", "mask", "blob"}
MIDDLE = {"place", "plan", "bank", "keep", "net", "backward", "train", "bn", "topk"}
MAY_INCLUDE = {
    "public": {"public"},
    "base": {"public", "base"},
    "op": {"public", "base", "op"},
    "middle": {"public", "base", "op", "middle"},
    "node": {"public", "base", "op", "middle"},
    "wire": {"public", "base", "op", "lib", "wire"},
    "capture": {"public", "base", "capture"},
    "lib": {"lib"},
    "infer": {"infer"},  # exported networks: a library of its own, which a board's program may use
    "port": {"public", "port", "infer"},
    "examples": {"public", "port", "examples"},
}


def imports(source: str, module: str, *, everywhere: bool = True) -> set[str]:
    """Full names of what a module imports; outside of functions and TYPE_CHECKING blocks only, if not `everywhere`."""
    found: set[str] = set()
    for node in _statements(ast.parse(source), everywhere=everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".")[: -node.level]
                base = ".".join([*parent, base]).rstrip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def _statements(tree: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        if everywhere or not (lazy or typing):
            yield node
            yield from _statements(node, everywhere=everywhere)


def part_of(module: str) -> str:
    """fedtiny.fleet.native -> fleet; fedtiny -> __init__."""
    return module.split(".")[1] if "." in module else "__init__"


def wrong_imports(module: str, source: str) -> list[str]:
    """Arrows of one module that run the wrong way."""
    wrong = []
    for name in sorted(imports(source, module)):
        package = name.partition(".")[0]
        if module.partition(".")[0] == "fedtiny_export":
            if package == "fedtiny":
                wrong.append(f"{module} imports {name}")
            continue
        if package != "fedtiny":
            continue
        source_part, target = part_of(module), name.split(".")[1] if "." in name else "__init__"
        target = target if target in ALLOWED else "__init__"  # a name of the package itself
        if source_part not in ALLOWED:
            wrong.append(f"{module} is in no known part: add {source_part} to ALLOWED here and to DESIGN.md")
        elif target != source_part and target not in ALLOWED[source_part]:
            wrong.append(f"{module} imports {name}")
    return wrong


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append((".".join([package, *(p for p in parts if p != "__init__")]), path))
    return found


def wrong_includes(path: str, source: str) -> list[str]:
    """Includes of one C file (path from firmware/) that run the wrong way."""
    wrong = []
    level = _level(path)
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', source, re.MULTILINE):
        target = _level(_found(path, name))
        if target not in MAY_INCLUDE[level]:
            wrong.append(f"{path} includes {name}: {level} knows only {', '.join(sorted(MAY_INCLUDE[level]))}")
        if target == "node":
            wrong.append(f"{path} includes {name}: nothing stands on a node but a port and the wire, by fedtiny.h")
    return wrong


def _found(path: str, name: str) -> str:
    """What an include means: beside the file, in the folders that the compiler is told, or somewhere in the ports."""
    firmware = ROOT / "firmware"
    told = ("include", "src", "src/op", "lib/monocypher", "infer")
    folders = [(firmware / path).parent, *(firmware / at for at in told)]
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).resolve().relative_to(firmware).as_posix()
    return f"port/{name}"


def _level(path: str) -> str:
    part, _, rest = path.partition("/")
    if part != "src":
        return "public" if part == "include" else part
    if rest.startswith(("capture/", "op/", "wire/")):
        return rest.partition("/")[0]
    stem = Path(path).stem
    return "base" if stem in BASE else "middle" if stem in MIDDLE else "node"


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_python_imports_follow_the_arrows(module: str, path: Path) -> None:
    assert wrong_imports(module, path.read_text("utf-8")) == []


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_what_starts_with_the_command_loads_nothing_heavy(module: str, path: Path) -> None:
    if module.startswith("fedtiny_export") or part_of(module) not in QUICK:
        return
    heavy = {name.partition(".")[0] for name in imports(path.read_text("utf-8"), module, everywhere=False)} & HEAVY
    assert heavy == set()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "firmware").rglob("*.[ch]")), ids=lambda p: p.relative_to(ROOT / "firmware").as_posix()
)
def test_c_includes_follow_the_arrows(path: Path) -> None:
    assert wrong_includes(path.relative_to(ROOT / "firmware").as_posix(), path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", sorted((PACKAGES["fedtiny"] / "link").glob("*.py")), ids=lambda path: path.stem)
def test_links_know_nothing_of_what_goes_over_them(path: Path) -> None:
    names = imports(path.read_text("utf-8"), f"fedtiny.link.{path.stem}")
    ours = {name for name in names if name.startswith("fedtiny_export")}
    assert {name for name in ours if not name.startswith("fedtiny_export.errors")} == set()


def test_the_public_headers_are_the_core_capture_storage_and_the_wire() -> None:
    found = sorted(path.name for path in (ROOT / "firmware" / "include").rglob("*.h"))
    assert found == ["fedtiny.h", "fedtiny_capture.h", "fedtiny_storage.h", "fedtiny_wire.h"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fedtiny_export.blob", "from fedtiny.federation import tasks"),
        ("fedtiny_export.blob", "def f():\n    import fedtiny.config"),
        ("fedtiny.pruning.pool", "from fedtiny.federation.tasks import Load"),
        ("fedtiny.pruning.pool", "from ..fleet import open_fleet"),
        ("fedtiny.data.sets", "if True:\n    from fedtiny import cli"),
        ("fedtiny.federation.server", "from fedtiny.fleet.native import NativeFleet"),
        ("fedtiny.fleet.native", "import fedtiny.experiment"),
        ("fedtiny.unheard_of", "from fedtiny.data import split"),
    ],
)
def test_a_wrong_import_is_caught(module: str, source: str) -> None:
    assert wrong_imports(module, source) != []


def test_a_right_import_is_not_caught() -> None:
    assert wrong_imports("fedtiny.fleet.native", "from fedtiny.federation.tasks import Load\nimport numpy") == []
    assert wrong_imports("fedtiny.pruning.pool", "from .density import kept\nfrom fedtiny_export import Graph") == []


def test_a_heavy_import_is_caught_only_where_it_costs_the_start() -> None:
    assert "torch" in imports("import torch", "fedtiny.cli", everywhere=False)
    assert imports("def f():\n    import torch", "fedtiny.cli", everywhere=False) == set()
    assert "torch" in imports("class A:\n    import torch", "fedtiny.cli", everywhere=False)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("src/op/conv.c", '#include "../train.h"'),
        ("src/op/conv.c", '#include "plan.h"'),
        ("src/mask.c", '#include "op/conv.h"'),
        ("src/train.c", '#include "node.h"'),
        ("src/net.c", '#include "samples.h"'),
        ("src/train.c", '#include "wire/cbor.h"'),
        ("src/node.c", '#include "fedtiny_wire.h"\n#include "monocypher.h"'),
        ("src/wire/work.c", '#include "../net.h"'),
        ("src/capture/ring.c", '#include "../wire/wire.h"'),
        ("src/wire/work.c", '#include "../capture/ring.h"'),
        ("examples/button/app.c", '#include "net.h"'),
        ("port/posix/main.c", '#include "../../src/net.h"'),
        ("port/posix/serve.c", '#include "../../src/wire/wire.h"'),
        ("infer/conv_s8.c", '#include "fedtiny.h"'),
        ("src/node.c", '#include "fedtiny_infer.h"'),
    ],
)
def test_a_wrong_include_is_caught(path: str, source: str) -> None:
    assert wrong_includes(path, source) != []
