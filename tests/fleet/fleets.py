"""Fleet files whose nodes are programs on this computer: the C node, or one in Python that can be told to misbehave."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtiny.federation.server import Server
from fedtiny.federation.tasks import NodeFailure
from fedtiny.fleet.keys import Device
from fedtiny.fleet.manage import record as first_record
from fedtiny.fleet.roster import Roster, read_roster

from ..host import runs

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(sys.executable).with_name("fedtiny-node")
KEY = bytes(range(32))
SLOT = 128
SHARDS = runs.shards(4)


@dataclass
class Lab:
    """A fleet file in a folder of its own, the nodes' records beside it."""

    folder: Path
    names: tuple[str, ...] = ("n1", "n2", "n3", "n4")
    head: str = "patience_s = 20\n"
    links: Mapping[str, str] = field(default_factory=dict)
    options: str = ""

    @property
    def file(self) -> Path:
        return self.folder / "lab.toml"

    @property
    def keys(self) -> Path:
        return self.folder / "lab.keys"

    def record(self, name: str) -> Path:
        return self.folder / f"{name}.record"

    def command(self, name: str) -> str:
        return " ".join(["fedtiny-node", "serve", shlex.quote(str(self.record(name))), self.options]).strip()

    def write(self) -> Lab:
        self.folder.mkdir(parents=True, exist_ok=True)
        nodes = [f'[nodes.{n}]\nlink = """{self.links.get(n, f"process:{self.command(n)}")}"""\n' for n in self.names]
        self.file.write_text(self.head + "\n".join(nodes))
        return self

    def enrolled(self) -> Roster:
        """As if each node had been enrolled before; records that are there stay."""
        roster = read_roster(self.file)
        for name in self.names:
            roster.keys[name] = Device(key=KEY, state="enrolled")
            if not self.record(name).exists():
                self.record(name).write_bytes(first_record(name, KEY))
        roster.keys.save()
        return roster

    def key_of(self, name: str) -> bytes | None:
        """The key in the newer slot of a node's record."""
        data = self.record(name).read_bytes()
        slots = [data[at : at + SLOT] for at in range(0, len(data), SLOT)]
        newest = max((slot for slot in slots if slot[:4] == b"FTRC"), key=lambda slot: slot[4:8][::-1])
        return newest[20:52] if newest[13] & 1 else None

    def python_node(self, name: str, **record: object) -> Lab:
        """This node is tests.link.core_node instead, with what else its record says (`version`, `incompat`, ...)."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"key": KEY.hex()} | record))
        program = f"{shlex.quote(sys.executable)} -m tests.link.core_node {name} {shlex.quote(str(path))}"
        self.links = {**self.links, name: f"process:{program}"}
        return self.write()

    def pid(self, name: str) -> int:
        """Of a node's program."""
        pattern = f"^fedtiny-node serve {self.record(name)}"
        return int(subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True).stdout)


def environment() -> dict[str, str]:
    """What programs need that start in another folder: the tests' modules, and the node on the path."""
    path = os.pathsep.join([str(NODE.parent), os.environ.get("PATH", "")])
    return {"PYTHONPATH": os.pathsep.join(entry for entry in (str(ROOT), *sys.path) if entry), "PATH": path}


def put_data(fleet: Any) -> None:
    shards = dict(zip(fleet.nodes, SHARDS.values(), strict=True))
    answers = dict(fleet.ask({node: [shards[node]] for node in fleet.nodes}))
    assert not any(isinstance(answer, NodeFailure) for answer in answers.values()), answers


def run_of(server: Server) -> list[Any]:
    """All rounds, and the numbers that come of them."""
    rounds = list(server.rounds())
    left_out = [failure for record in rounds for failure in record.failures]
    assert not left_out, left_out  # then it is another run
    records = [(r.train_loss, r.densities, r.participants) for r in rounds]
    return [records[-1][:2], {name: array.tobytes() for name, array in server.model.arrays.items()}]
