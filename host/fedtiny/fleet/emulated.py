"""Emulated boards of a fleet file are made ready by who uses them: an image for each board, a key for each node."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fedtiny.fleet.keys import Device
from fedtiny.fleet.manage import record
from fedtiny.fleet.roster import Roster
from fedtiny.images import keep_node, kept_node
from fedtiny.link.messages import Profile
from fedtiny.link.session import KEY_BYTES
from fedtiny_export.errors import ConfigError

AREAS = ("model-0", "model-1", "samples")  # what an emulated board keeps in files beside its record


def prepare(roster: Roster, nodes: Sequence[str], tell: Callable[[str], None] = lambda text: None) -> None:
    """Builds the images that are missing and gives nodes without a key one, by writing their record: each is a program
    of this computer, and nobody else hears of its key. A revoked key stays revoked. `tell` hears what is being done.

    Raises ConfigError, as for a compiler that is not there.
    """
    found = {node: emulated for node in nodes if (emulated := roster.emulated(node))}
    boards = {board.name: board for board, image in found.values() if image is None}
    for board in boards.values():
        if not kept_node(board, roster.boards).is_file():
            tell(f"building the node of {board.name}")
            keep_node(board, roster.boards)
    with roster.keys.alone():
        new = [node for node in found if _wants_a_key(roster, node)]
        for node in new:
            _give_key(roster, node)
        roster.keys.save()
    if new:
        tell(f"{', '.join(new)}: a new key each, in {roster.keys.path}")


def _wants_a_key(roster: Roster, node: str) -> bool:
    if roster.profile(node) is Profile.PLAIN:
        return False
    state = roster.keys[node].state
    return state in ("unknown", "pending") or (state == "enrolled" and not roster.record(node).exists())


def _give_key(roster: Roster, node: str) -> None:
    """A record written anew: whatever the node was before, it starts with this key, without models or samples, and has
    never booted.
    """
    key, path = os.urandom(KEY_BYTES), roster.record(node)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for area in AREAS:
            path.with_name(f"{path.name}.{area}").unlink(missing_ok=True)
        _write(path, record(node, key))
    except OSError as problem:
        raise ConfigError(f"cannot write the record {path}: {problem.strerror}.") from None
    roster.keys[node] = Device(key=key, state="enrolled")


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
