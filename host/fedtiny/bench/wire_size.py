"""What the node's end of the wire takes on a Cortex-M4F: flash, and RAM with the stack of its deepest call."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fedtiny import emulation
from fedtiny.bench import builds
from fedtiny.bench.suite import Config
from fedtiny_export.errors import ConfigError

TARGET = "m4f"
CALLS = ("ft_wire_start", "ft_wire_feed", "ft_wire_poll")
_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?\\n(\d+) bytes')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')


@dataclass(frozen=True)
class Calls:
    """Who calls whom in C, and bytes of stack that each function takes, as the compiler tells them."""

    frames: dict[str, int] = field(default_factory=dict)
    callees: dict[str, set[str]] = field(default_factory=dict)

    def add(self, told: str) -> None:
        """One file of -fcallgraph-info=su."""
        self.frames.update((name, int(count)) for name, count in _NODE.findall(told))
        for caller, callee in _EDGE.findall(told):
            self.callees.setdefault(caller, set()).add(callee)

    def deepest(self, name: str) -> tuple[int, tuple[str, ...]]:
        """Bytes of the deepest chain of calls from a function, and the chain. Raises ConfigError on recursion."""

        @cache
        def below(function: str) -> tuple[int, tuple[str, ...]]:
            if function in path:
                raise ConfigError(f"{function} calls itself: its stack has no bound")
            path.append(function)
            rest = max(map(below, sorted(self.callees.get(function, ()))), default=(0, ()))
            path.pop()
            return self.frames.get(function, 0) + rest[0], (function, *rest[1])

        path: list[str] = []
        return below(name)


def flash_bytes(folder: Path) -> tuple[int, Config]:
    """What an image grows by when the wire is called in it: protocol and cryptography of psk and plain."""
    without = builds.flash_bytes(TARGET, builds.DETERMINISTIC, "none", folder)
    image = builds.flash_bytes(TARGET, builds.DETERMINISTIC, "wire", folder)
    what = "protocol and cryptography, profiles psk and plain; tasks and port are not in it"
    return image - without, {"target": TARGET, "optimise": builds.OPTIMISE, "what": what}


def ram_bytes(folder: Path) -> tuple[int, Config]:
    """The state of a node with its two frame buffers, and the stack of the wire's own functions at its deepest."""
    state = _bss("wire", folder) - _bss("none", folder)
    calls = call_graph(folder)
    stack, chain = max(calls.deepest(name) for name in CALLS)
    config: Config = {
        "target": TARGET,
        "what": {"state": state, "stack": stack},
        "deepest": [name.rpartition("/")[2] for name in chain],
    }
    return state + stack, config


def _bss(name: str, folder: Path) -> int:
    return builds.bss_bytes(TARGET, builds.flash_image(TARGET, builds.DETERMINISTIC, name, folder))


def call_graph(folder: Path) -> Calls:
    """Of the wire's sources, compiled as for the image."""
    board = builds.board_of(TARGET)
    emulation.need_tools(board)
    command = emulation.compile_command(board, optimise=builds.OPTIMISE)
    calls = Calls()
    for source in emulation.wire_sources():
        out = folder / f"graph-{source.stem}.o"
        whole = [*command, *emulation.wire_flags(), "-fcallgraph-info=su", "-c", str(source), "-o", str(out)]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"{source.name} does not compile: {done.stderr.strip()[-500:]}")
        calls.add(out.with_suffix(".ci").read_text())
    return calls
