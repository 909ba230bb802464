"""Keys of devices: given, listed, taken away (`fedtiny fleet`)."""

from __future__ import annotations

import asyncio
import os
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedtiny.federation.tasks import NodeFailure, NodeReport, Report
from fedtiny.fleet.keys import Device
from fedtiny.fleet.roster import Roster
from fedtiny.fleet.wire import WireFleet
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.messages import Hello, Profile, TaskKind
from fedtiny.link.session import KEY_BYTES, Identity
from fedtiny_export.errors import ConfigError, LinkError, NodeRefused

PATIENCE_S = 10.0
_SLOT, _SLOT_HEAD, _RECORD = 128, struct.Struct("<4sII"), struct.Struct("<BBBBI32s32s")


def chosen(roster: Roster, nodes: Sequence[str]) -> list[str]:
    """Raises ConfigError for a name that the file lacks."""
    for node in nodes:
        if node not in roster.nodes:
            raise ConfigError(f"{roster.path} has no node {node}. It has: {', '.join(roster.nodes)}.")
    return list(nodes or roster.nodes)


def enrol(
    roster: Roster,
    nodes: Sequence[str],
    *,
    patience_s: float = PATIENCE_S,
    enrolled: Callable[[str, Hello], None] = lambda node, hello: None,
) -> None:
    """Gives each of these nodes (all that have none, if none is named) a key of its own, over the cable.

    The key goes over the line unprotected: links through a broker are refused. Raises ConfigError and LinkError.
    """
    with roster.keys.alone():
        wanted = chosen(roster, nodes)
        if not nodes:
            wanted = [n for n in wanted if roster.keys[n].state != "enrolled" and _can_be_enrolled(roster, n)]
        for node in wanted:
            if roster.profile(node) is Profile.PLAIN:
                raise ConfigError(f"{node}: its profile is plain, which has no key. Set its profile to psk first.")
            if roster.link_name(node).startswith("mqtt:"):
                raise ConfigError(
                    f"{node}: a key never goes through a broker. Connect it by cable and name that link, or write its "
                    f"record for flashing: fedtiny fleet enrol {roster.path} {node} --offline RECORD"
                )
        for node in wanted:
            enrolled(node, asyncio.run(_enrol(roster, node, patience_s)))


def _can_be_enrolled(roster: Roster, node: str) -> bool:
    return roster.profile(node) is not Profile.PLAIN and not roster.link_name(node).startswith("mqtt:")


async def _enrol(roster: Roster, node: str, patience_s: float) -> Hello:
    keys = roster.keys
    key = _pending_key(roster, node)
    identity = Identity(node, roster.profile(node), key)
    connection = Connection(
        roster.link(node),
        identity,
        patience_s=patience_s,
        on_session=lambda hello: keys.__setitem__(node, keys[node].after(hello, time.time())),
    )
    async with connection:
        try:
            await connection.enrol(key)
        except NodeRefused:
            keys[node] = replace(keys[node], key=None, state="unknown")  # it never took this key
            keys.save()
            raise
        hello = await connection.reach()
    keys[node] = replace(keys[node], state="enrolled")
    keys.save()
    return hello


def _pending_key(roster: Roster, node: str) -> bytes:
    """The key that the node is about to get; one whose enrolment was broken off, if there is, for it may have it."""
    before = roster.keys[node]
    key = before.key if before.state == "pending" and before.key else os.urandom(KEY_BYTES)
    roster.keys[node] = Device(key=key, state="pending")
    roster.keys.save()
    return key


def write_record(roster: Roster, node: str, path: Path) -> None:
    """A new key in the file that is flashed where the node keeps its record (firmware/port/record.h)."""
    with roster.keys.alone():
        chosen(roster, [node])
        if roster.profile(node) is Profile.PLAIN:
            raise ConfigError(f"{node}: its profile is plain, which has no key. Set its profile to psk first.")
        key = os.urandom(KEY_BYTES)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(record(node, key))
        except OSError as problem:
            raise ConfigError(f"cannot write {path}: {problem.strerror}.") from None
        roster.keys[node] = Device(key=key, state="enrolled")
        roster.keys.save()


def record(node: str, key: bytes) -> bytes:
    """One slot of storage with a record in it: id, key, no boot yet."""
    body = _RECORD.pack(1, 1, len(node.encode()), 0, 0, key, node.encode())
    slot = (_SLOT_HEAD.pack(b"FTRC", 1, len(body)) + body).ljust(_SLOT - 4, b"\0")
    return slot + zlib.crc32(slot).to_bytes(4, "little")


def revoke(roster: Roster, nodes: Sequence[str], *, patience_s: float = PATIENCE_S) -> dict[str, str | None]:
    """Takes these nodes' keys off the file; each that can be reached is told to erase its own.

    By name: None where the node erased its key, else why it could not be told.
    """
    told: dict[str, str | None] = {}
    with roster.keys.alone():
        for node in chosen(roster, nodes):
            told[node] = asyncio.run(_forget(roster, node, patience_s))
            roster.keys[node] = replace(roster.keys[node], key=None, state="revoked")
            roster.keys.save()
    return told


async def _forget(roster: Roster, node: str, patience_s: float) -> str | None:
    from fedtiny.link.mqtt import Broker

    broker = None
    try:
        identity = roster.identity(node)
        if roster.link_name(node).startswith("mqtt:"):
            broker = Broker(roster.account())
        async with Connection(roster.link(node, broker), identity, patience_s=patience_s) as connection:
            answer = await connection.ask(Job(TaskKind.FORGET, limit_s=patience_s))
        return None if answer.status == 0 else f"{node}: it could not erase its key (status {answer.status})"
    except (LinkError, ConfigError) as problem:
        return str(problem)
    finally:
        if broker is not None:
            await broker.close()


def listed(roster: Roster, *, ask: bool = True, patience_s: float = 5.0) -> list[dict[str, Any]]:
    """A row for each node of the file. `ask`: talk to all that have a key; else only what is on file.

    What a node reports of itself (peak_bytes, busy_s, tasks, dropped, asked_again) is since it was started.
    """
    problems: dict[str, str] = {}
    wanted = []
    for node in roster.nodes:
        try:
            roster.identity(node)
            wanted.append(node)
        except ConfigError as problem:
            problems[node] = str(problem)
    reached = set[str]()
    reports: dict[str, NodeReport] = {}
    if ask and wanted:
        fleet = WireFleet(roster, wanted, patience_s=patience_s)
        try:
            for node, hello in fleet.hellos().items():
                if isinstance(hello, Hello):
                    reached.add(node)
                else:
                    problems[node] = str(hello)
            for node, answer in fleet.ask({node: [Report()] for node in reached}):
                if isinstance(answer, NodeFailure):
                    problems[node] = f"{node}: {answer.reason}"
                elif isinstance(answer[0], NodeReport):
                    reports[node] = answer[0]
        finally:
            fleet.close()
    return [
        _row(roster, node, node in reached if ask else None, reports.get(node), problems.get(node))
        for node in roster.nodes
    ]


def _row(
    roster: Roster, node: str, reached: bool | None, report: NodeReport | None, problem: str | None
) -> dict[str, Any]:
    device = roster.keys[node]
    profile = roster.profile(node)
    return {
        "node": node,
        "link": roster.link_name(node),
        "profile": profile.word,
        "state": "plain" if profile is Profile.PLAIN else device.state,
        "reached": reached,
        "board": device.board or None,
        "firmware": device.firmware or None,
        "free_ram": device.free_ram if device.last_seen else None,
        "arena_bytes": device.arena_bytes if device.last_seen else None,
        "boot_counter": device.boot_counter if device.last_seen else None,
        "last_seen": device.last_seen,
        "peak_bytes": report.peak_bytes if report else None,
        "busy_s": report.busy_s if report else None,
        "tasks": report.tasks if report else None,
        "dropped": report.dropped if report else None,
        "asked_again": report.asked_again if report else None,
        "problem": problem,
    }
