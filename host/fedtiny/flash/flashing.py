"""Many boards at once: each gets the image of its own kind, and says afterwards which board and firmware it is."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fedtiny.boards import Board
from fedtiny.flash import tools, usb
from fedtiny.flash.make import Made
from fedtiny.flash.usb import Device
from fedtiny.link.links import SerialLink
from fedtiny.link.look import Seen, look
from fedtiny_export.errors import ConfigError, LinkError, LinkUnavailable

TRIES = 2
TOOL_S, ANSWER_S, PORT_AGAIN_S = 180.0, 8.0, 0.2


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board behind a USB device. `port`: where its node talks; None: nobody knows, and it cannot be read back."""

    board: Board
    device: Device
    port: str | None
    node: str = ""

    @property
    def name(self) -> str:
        return f"{self.board.name}@{self.device.name}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`seen`: what the board said after it was written. `problem`: what went wrong and what to do; "": nothing did."""

    target: Target
    tool: str
    tries: int
    seen: Seen | None
    problem: str

    @property
    def state(self) -> str:
        return "failed" if self.problem else "answers" if self.seen else "written"


def find_targets(
    wanted: Sequence[str],
    boards: Mapping[str, Board],
    devices: Sequence[Device],
    *,
    everything: bool = False,
    chips: Mapping[str, int] | None = None,
    known: Mapping[str, tuple[str, str]] | None = None,
) -> list[Target]:
    """Which board lies behind which device. Raises ConfigError where that is not certain: nothing is guessed.

    `wanted`: BOARD or BOARD@SERIALNUMBER. `everything`: all devices that some board's file names. `chips`: chip ids by
    probe (tools.chips_seen). `known`: board and node by serial number, from a fleet file.
    """
    finder = _Finder(boards, devices, chips or {}, known or {})
    found = [finder.named(word) for word in wanted] if not everything else finder.all()
    twice = [name for name, count in Counter(t.device.place for t in found).items() if count > 1]
    if twice:
        raise ConfigError(f"the device at {twice[0]} is named more than once. Name each board once.")
    if not found:
        raise ConfigError("no board that can be flashed is plugged in. fedtiny fleet scan shows what there is.")
    return found


class _Finder:
    def __init__(
        self,
        boards: Mapping[str, Board],
        devices: Sequence[Device],
        chips: Mapping[str, int],
        known: Mapping[str, tuple[str, str]],
    ) -> None:
        self._boards, self._devices, self._chips, self._known = boards, devices, chips, known

    def named(self, word: str) -> Target:
        name, _, serial = word.partition("@")
        board = self._boards.get(name)
        if board is None:
            raise ConfigError(f"there is no board '{name}'. fedtiny boards lists them.")
        if board.flash is None:
            raise ConfigError(f"board {name} is not flashed: its file has no section [flash].")
        able = [device for device in self._devices if device.usb in board.flash.usb]
        if serial:
            able = [device for device in able if device.serial == serial]
            if not able:
                there = ", ".join(d.name for d in self._devices if d.usb in board.flash.usb) or "none"
                raise ConfigError(
                    f"no device with the serial number {serial} that {name} is flashed through is plugged in. "
                    f"There: {there}."
                )
        fitting = [device for device in able if name in self._candidates(device)]
        if able and not fitting:
            raise ConfigError(self._wrong(board, able))
        if not fitting:
            raise ConfigError(f"no {name} is plugged in: no USB device {' or '.join(board.flash.usb)}.")
        if len(fitting) > 1:
            if serial:
                raise ConfigError(
                    f"{len(fitting)} devices have the serial number {serial}, and a tool cannot tell them apart. "
                    "Flash them one after the other, with the others unplugged."
                )
            ways = " ".join(f"{name}@{device.serial}" for device in fitting)
            raise ConfigError(f"{len(fitting)} devices may be a {name}. Name those that are: fedtiny flash {ways}")
        return self._target(board, fitting[0])

    def all(self) -> list[Target]:
        found, unsure = [], []
        for device in self._devices:
            names = self._candidates(device)
            if len(names) == 1:
                found.append(self._target(self._boards[names[0]], device))
            elif names:
                unsure.append(f"  {device.name} ({device.usb} {device.product}): {', '.join(names)}?")
        serials = Counter((t.device.usb, t.device.serial) for t in found)
        unsure += [f"  two devices with the serial number {s}: unplug one" for (_, s), n in serials.items() if n > 1]
        if unsure:
            raise ConfigError(
                "nothing is flashed, for it is not certain which boards these are:\n" + "\n".join(unsure) + "\n"
                "Name them as BOARD@SERIALNUMBER, or keep board and link of each in a fleet file (--fleet). "
                "With stlink-tools installed, the chip behind an ST-LINK tells many of them apart."
            )
        return found

    def _candidates(self, device: Device) -> list[str]:
        """Boards that this device may be, by its USB id, the chip that answers behind it, and the fleet file."""
        names = [n for n, b in self._boards.items() if b.flash and device.usb in b.flash.usb]
        chip = self._chips.get(device.serial)
        if chip is not None:
            names = [n for n in names if self._chip(n) in (None, chip)]
        told = self._known.get(device.serial)
        return [n for n in names if n == told[0]] if told else names

    def _chip(self, name: str) -> int | None:
        flash = self._boards[name].flash
        return flash.chip_id if flash else None

    def _wrong(self, board: Board, able: Sequence[Device]) -> str:
        device = able[0]
        told = self._known.get(device.serial)
        if told and told[0] != board.name:
            return f"{device.name} is a {told[0]} by the fleet file (node {told[1]}), no {board.name}. Name that board."
        chip = self._chips.get(device.serial)
        there = [n for n in self._boards if chip is not None and self._chip(n) == chip]
        return (
            f"the chip behind {device.name} says {chip or 0:#x}, and that of {board.name} says "
            f"{self._chip(board.name) or 0:#x}. It may be: {', '.join(there) or 'a board that fedtiny does not know'}."
        )

    def _target(self, board: Board, device: Device) -> Target:
        ports = device.ports if device.usb in board.link.usb or "esptool" in tools.tools_for(board, device) else ()
        told = self._known.get(device.serial)
        return Target(board=board, device=device, port=ports[0] if ports else None, node=told[1] if told else "")


def flash_all(
    targets: Sequence[Target],
    images: Mapping[str, Made],
    *,
    tool: str | None = None,
    answer_s: float = ANSWER_S,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Writes each target's image, all at the same time. Raises ConfigError where a tool is missing: then none is."""
    chosen = [tools.choose_tool(target.board, target.device, tool) for target in targets]
    stop = threading.Event()

    def one(target: Target, its_tool: str) -> Outcome:
        outcome = _flash(target, images[target.board.name], its_tool, answer_s, stop)
        done(outcome)
        return outcome

    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        try:
            return list(pool.map(one, targets, chosen))
        except KeyboardInterrupt:
            stop.set()  # the tools have heard it too: no second try
            raise


def _flash(target: Target, made: Made, tool: str, answer_s: float, stop: threading.Event) -> Outcome:
    problem, seen, tries = "", None, 0
    while not (hindered := _hindered(target)) and tries < TRIES and not stop.is_set():
        tries += 1
        problem, seen = _once(target, made, tool, answer_s)
        if not problem:
            return Outcome(target=target, tool=tool, tries=tries, seen=seen, problem="")
    return Outcome(target=target, tool=tool, tries=tries, seen=seen, problem=hindered or problem)


def _hindered(target: Target) -> str:
    """What stands in the way whatever the tool does: it is gone, it is not allowed, somebody has the port."""
    there = any(d.place == target.device.place and d.serial == target.device.serial for d in usb.plugged())
    if not there:
        return (
            f"{target.device.name} was unplugged. What is on the board is not known. Plug it in and repeat: "
            f"fedtiny flash {target.name}"
        )
    return usb.node_advice(target.device) or (usb.port_advice(target.port) if target.port else None) or ""


def _once(target: Target, made: Made, tool: str, answer_s: float) -> tuple[str, Seen | None]:
    """A problem, or "" and what the board said."""
    try:
        command = tools.command_of(tool, made, target.device)
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TOOL_S, check=False)
    except ConfigError as problem:
        return str(problem), None
    except subprocess.TimeoutExpired:
        return f"{tool} did not end within {TOOL_S:g} s. Unplug the board, plug it in, and repeat.", None
    said = done.stdout + done.stderr
    if not tools.succeeded(tool, done.returncode, said):
        return f"{tool} failed: {tools.advice(tool, said, target.device)}", None
    if target.port is None:
        return "", None
    try:
        seen = _read_back(target, answer_s)
    except LinkError as problem:
        return f"it was written, and then: {problem}", None
    return _unlike(target, made, seen), seen


def _read_back(target: Target, answer_s: float) -> Seen:
    """What the board says on its port, which may go and come back, by another name, when the board starts anew."""
    end = time.monotonic() + answer_s
    while True:
        ports = [port for d in usb.plugged() if d.place == target.device.place for port in d.ports]
        port = ports[0] if ports else target.port
        assert port is not None
        try:
            left_s = max(0.1, end - time.monotonic())
            return asyncio.run(look(SerialLink(port, target.board.baud), patience_s=left_s))
        except LinkUnavailable:
            if time.monotonic() >= end:
                raise
            time.sleep(PORT_AGAIN_S)


def _unlike(target: Target, made: Made, seen: Seen) -> str:
    if seen.board != target.board.name:
        return (
            f"the node at {target.port} says that it is a {seen.board or 'nameless board'}, not a {target.board.name}. "
            "Is the port that of another board, or an older image still running? Reset the board and repeat."
        )
    if made.firmware is not None and seen.firmware is not None and seen.firmware != made.firmware:
        return (
            f"the node at {target.port} runs firmware {seen.firmware.hex()}, and {made.firmware.hex()} was written. "
            "Reset the board; if that does not help, erase its flash first."
        )
    return ""
