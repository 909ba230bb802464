"""The fleet file: which nodes there are, over which link each is reached, who the broker is and where keys are kept.

name = "lab"                      # its topics on a broker: fl/v1/lab/
keys = "lab.keys"                 # the default: beside this file, with this file's name

[broker]                          # for mqtt: links
host = "broker.example.org"
user = "host"
password_file = "broker.password" # or password_env = "BROKER_PASSWORD"
ca_file = "authority.crt"

[nodes.n1]
link = "serial:A50285BI@921600"

[nodes.n2]
link = "mqtt:n2"
"""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtiny.boards import Board, board_files, load_board
from fedtiny.fleet.keys import KeyStore
from fedtiny.images import keep_node, node_command
from fedtiny.link.links import NAMES, Link, ProcessLink, open_link
from fedtiny.link.messages import Profile
from fedtiny.link.mqtt import Account, Broker
from fedtiny.link.session import Identity
from fedtiny_export.errors import ConfigError

PROFILES = {profile.word: profile for profile in Profile}
Words = Literal["psk", "psk-fs", "plain"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BrokerTable(_Table):
    host: str = Field(min_length=1, description="the broker's name or address, a name that its certificate has")
    port: int = Field(8883, ge=1, le=65535, description="8883 by custom with TLS, 1883 without")
    user: str | None = Field(None, description="the host's login")
    password_file: str | None = Field(None, description="file whose first line is the password")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    ca_file: str | None = Field(None, description="PEM file of the authority; the default is the system's")
    tls: bool = Field(True, description="false only for a broker on this machine")


class NodeTable(_Table):
    link: str = Field(min_length=1, description=f"{NAMES}, qemu:BOARD, qemu:BOARD:IMAGE")
    profile: Words | None = Field(None, description="psk, psk-fs, or plain: without any protection")
    board: str | None = Field(None, min_length=1, description="which board it is, for fedtiny flash")
    password_file: str | None = Field(None, description="of this board's own login, for fedtiny bridge")


class FleetTable(_Table):
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="of the fleet")
    profile: Words = Field("psk", description="of nodes that name none")
    keys: str | None = Field(None, description="the key file; the default lies beside this file")
    log: str | None = Field(None, description="file for what nodes say of themselves and what is no frame")
    patience_s: float = Field(60.0, gt=0, le=86400, description="so long may a node be silent that was asked something")
    limit_s: float = Field(600.0, gt=0, le=864000, description="so long may a node work on one task")
    broker: BrokerTable | None = Field(None, description="for mqtt: links")
    settings: dict[str, Any] = Field(default_factory=dict, description="what a run on these nodes sets differently")
    nodes: dict[str, NodeTable] = Field(min_length=1, description="tables [nodes.NAME]")


class Roster:
    """A fleet file, checked; links and keys are opened by whoever asks."""

    def __init__(self, path: Path, table: FleetTable) -> None:
        self.path = path
        self.table = table
        self.name = table.name or path.stem
        self.keys = KeyStore(self._beside(table.keys or f"{path.stem}.keys"))

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self.table.nodes)

    def profile(self, node: str) -> Profile:
        return PROFILES[self.table.nodes[node].profile or self.table.profile]

    def link_name(self, node: str) -> str:
        return self.table.nodes[node].link

    @property
    def log_path(self) -> Path | None:
        return self._beside(self.table.log) if self.table.log else None

    @property
    def plain(self) -> tuple[str, ...]:
        """Nodes whose line protects nothing."""
        return tuple(node for node in self.nodes if self.profile(node) is Profile.PLAIN)

    @property
    def needs_broker(self) -> bool:
        return any(self.link_name(node).startswith("mqtt:") for node in self.nodes)

    def identity(self, node: str) -> Identity:
        """Who is expected there. Raises ConfigError where no key is on file."""
        profile, device = self.profile(node), self.keys[node]
        if profile is Profile.PLAIN:
            return Identity(node, profile)
        if device.state != "enrolled" or device.key is None:
            raise ConfigError(f"{node}: {_NO_KEY[device.state]} fedtiny fleet enrol {self.path} {node}")
        return Identity(node, profile, device.key, device.boot_counter)

    def account(self) -> Account:
        """The login of the fleet's host. Raises ConfigError."""
        broker = self.table.broker
        if broker is None:
            raise ConfigError(f"{self.path}: it has mqtt: links and no broker. Add [broker] with host and user.")
        password = None
        if broker.password_file and broker.password_env:
            raise ConfigError(f"{self.path}: [broker] has password_file and password_env. Keep one of them.")
        if broker.password_file:
            password = self.password(broker.password_file)
        if broker.password_env:
            password = os.environ.get(broker.password_env)
            if password is None:
                raise ConfigError(f"{self.path}: the environment has no {broker.password_env}. Set it.")
        ca_file = str(self._beside(broker.ca_file)) if broker.ca_file else None
        return Account(broker.host, broker.port, self.name, broker.user, password, broker.tls, ca_file)

    def account_of(self, node: str) -> Account:
        """The login of one board, for a bridge: its user is its id, so that the broker keeps it to its own topics."""
        own = self.table.nodes[node].password_file
        account = self.account()
        password = self.password(own) if own else account.password
        return replace(account, user=node, password=password)

    def password(self, name: str) -> str:
        path = self._beside(name)
        try:
            lines = path.read_text().splitlines()
        except OSError as problem:
            raise ConfigError(f"{path}: the password cannot be read: {problem.strerror}.") from None
        if not lines or not lines[0]:
            raise ConfigError(f"{path}: its first line is to be the password, and it is empty.")
        return lines[0]

    def emulated(self, node: str) -> tuple[Board, Path | None] | None:
        """The board of a qemu: link and its image, None where fedtiny builds it; None for another link.

        Raises ConfigError where the board cannot be emulated here.
        """
        kind, _, rest = self.link_name(node).partition(":")
        if kind != "qemu":
            return None
        name, _, image = rest.partition(":")
        if not name:
            raise ConfigError("write qemu:BOARD, such as qemu:qemu-netduinoplus2, or qemu:BOARD:IMAGE")
        board, path = load_board(name), self._beside(image) if image else None
        if path is not None and not path.is_file():
            raise ConfigError(f"there is no image {path}.")
        node_command(board, path or self.boards, self.record(node))
        return board, path

    def board(self, node: str) -> Board | None:
        """Which board it is by its link, by `board`, or by what it said the last time; None: nobody knows."""
        emulated = self.emulated(node)
        if emulated:
            return emulated[0]
        name = self.table.nodes[node].board or self.keys[node].board
        return load_board(name) if name in board_files() else None

    @property
    def boards(self) -> Path:
        """The folder of emulated boards whose images fedtiny builds: images, records, samples. It can be deleted."""
        return self._beside(f"{self.path.stem}.boards")

    def record(self, node: str) -> Path:
        """Where an emulated node's record lies."""
        built = self.link_name(node).count(":") < 2
        return self.boards / f"{node}.record" if built else self._beside(f"{node}.record")

    def link(self, node: str, broker: Broker | None = None) -> Link:
        """Raises ConfigError for a name that is no link."""
        name = self.link_name(node)
        try:
            return self._emulated(node) if name.startswith("qemu:") else open_link(name, broker)
        except ConfigError as problem:
            raise ConfigError(f"{self.path}: nodes.{node}.link: {problem}") from None

    def _emulated(self, node: str) -> Link:
        """An emulator whose UART is the link."""
        found = self.emulated(node)
        assert found is not None
        board, image = found
        return ProcessLink(shlex.join(node_command(board, image or keep_node(board, self.boards), self.record(node))))

    def _beside(self, name: str) -> Path:
        """Relative paths start at the fleet file; ~ is the user's home."""
        return self.path.parent / Path(name).expanduser()


_NO_KEY = {
    "unknown": "it has no key on file. Give it one:",
    "pending": "its enrolment was broken off. Finish it:",
    "revoked": "its key was revoked. If it may join again, enrol it anew:",
    "enrolled": "its key is missing from the file. Enrol it anew:",
}


def read_roster(path: str | Path) -> Roster:
    """Raises ConfigError naming file, key and the nearest right key."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"cannot read the fleet file {path}: {problem.strerror}. docs/fleet.md shows how to write one."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not valid TOML: {problem}. Mend that line.") from None
    try:
        roster = Roster(path.resolve(), FleetTable.model_validate(table))
    except ValidationError as error:
        found = "\n".join(_problem(dict(detail)) for detail in error.errors(include_url=False))
        raise ConfigError(f"{path}: {found}") from None
    for node in roster.nodes:
        _check_node(roster, node)
    return roster


def _check_node(roster: Roster, node: str) -> None:
    link = roster.link_name(node)
    if not 1 <= len(node.encode()) <= 31 or any(sign in node for sign in "/+#"):
        raise ConfigError(f"{roster.path}: {node!r} is no device id: 1 to 31 bytes without / + #.")
    if link.startswith("mqtt:"):
        if link != f"mqtt:{node}":
            raise ConfigError(
                f"{roster.path}: nodes.{node}.link = {link!r}: a device's topics have its id. Write mqtt:{node}"
            )
        if roster.table.broker is None:
            roster.account()
    elif link.startswith("qemu:"):
        try:
            roster.emulated(node)
        except ConfigError as problem:
            raise ConfigError(f"{roster.path}: nodes.{node}.link: {problem}") from None
    else:
        roster.link(node)


def _problem(detail: Mapping[str, Any]) -> str:
    where = [str(part) for part in detail["loc"]]
    key, section = ".".join(where), where[:-1]
    kinds: dict[str, type[BaseModel]] = {"": FleetTable, "broker": BrokerTable, "nodes": NodeTable}
    kind = kinds.get(section[0] if section else "", FleetTable)
    fields = kind.model_fields
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], fields, 1, 0.5)
        hint = f" Did you mean {'.'.join([*section, near[0]])}?" if near else ""
        return f"unknown key {key}.{hint} Keys there: {', '.join(fields)}."
    if detail["type"] == "missing":
        return f"{key} is missing: {fields[where[-1]].description}."
    about = f" ({fields[where[-1]].description})" if where[-1] in fields else ""
    return f"{key} = {detail['input']!r} is not allowed: {detail['msg'].lower()}{about}."
