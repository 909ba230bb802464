"""The keys of a fleet's devices and what was last seen of each: one file, for its owner's eyes alone.

A key is written down before a device gets it (`pending`), so that none is ever lost between the two.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fedtiny.link.messages import Hello
from fedtiny_export.errors import ConfigError, FleetError

VERSION = 1
State = Literal["unknown", "pending", "enrolled", "revoked"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is on file of a device. `key`: 32 bytes; never shown. `last_seen`: seconds since 1970."""

    key: bytes | None = field(default=None, repr=False)
    state: State = "unknown"
    boot_counter: int = 0
    board: str = ""
    firmware: str = ""
    free_ram: int = 0
    arena_bytes: int = 0
    last_seen: float | None = None

    def after(self, hello: Hello, now: float) -> Device:
        """With what a HELLO said."""
        return replace(
            self,
            boot_counter=hello.boot_counter,
            board=hello.board,
            firmware=hello.firmware.hex(),
            free_ram=hello.free_ram,
            arena_bytes=hello.arena_bytes,
            last_seen=now,
        )


class KeyStore:
    """The file, which need not exist yet. Changes are written by `save`: whole, under another name, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = False
        self._devices = dict(self._read()) if path.exists() else {}

    def __getitem__(self, device: str) -> Device:
        return self._devices.get(device, Device())

    def __setitem__(self, device: str, what: Device) -> None:
        if self._devices.get(device) != what:
            self._devices[device] = what
            self._changed = True

    @property
    def devices(self) -> Mapping[str, Device]:
        return self._devices

    def save(self) -> None:
        if not self._changed:
            return
        table = {"version": VERSION, "devices": {name: _plain(device) for name, device in self._devices.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # mode 0600
            with os.fdopen(handle, "w") as file:
                json.dump(table, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except OSError as problem:
            raise ConfigError(f"cannot write the keys to {self.path}: {problem.strerror}.") from None
        self._changed = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While this program talks to the fleet no other one may: a node has one host, and counters one writer."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(f".{self.path.name}.lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise FleetError(
                    f"another fedtiny is talking to the devices of {self.path}. Wait for it, or stop it."
                ) from None
            self._devices = dict(self._read()) if self.path.exists() else {}
            yield

    def _read(self) -> Iterator[tuple[str, Device]]:
        if self.path.stat().st_mode & 0o077:
            raise ConfigError(f"{self.path} holds keys, and others may read it. Close it: chmod 600 {self.path}")
        try:
            table = json.loads(self.path.read_text())
            if table["version"] != VERSION:
                raise ConfigError(
                    f"{self.path} is a key file of version {table['version']}, this fedtiny reads {VERSION}. Update it."
                )
            for name, device in table["devices"].items():
                key = device["key"]
                yield name, Device(**device | {"key": None if key is None else bytes.fromhex(key)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{self.path} is damaged: it holds no keys as fedtiny writes them. Put back a copy of it; without one, "
                "move it away and enrol the devices anew."
            ) from None


def _plain(device: Device) -> dict[str, Any]:
    return asdict(device) | {"key": device.key.hex() if device.key else None}
