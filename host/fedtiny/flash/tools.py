"""The programs that write to a chip: how each is told which of several boards, and what its complaints mean."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

from fedtiny.boards import Board
from fedtiny.flash import usb
from fedtiny.flash.make import Made
from fedtiny.flash.usb import Device
from fedtiny_export.errors import ConfigError

DFU = "0483:df11"
"""STM32's own loader in ROM: the chip itself is the USB device, and no probe is needed."""
ESP_BAUD = 460_800
_PROGRAMS = {"esptool": ("esptool", "esptool.py")}
PACKAGES = {
    "st-flash": "sudo apt-get install -y --no-install-recommends stlink-tools",
    "openocd": "sudo apt-get install -y --no-install-recommends openocd",
    "dfu-util": "sudo apt-get install -y --no-install-recommends dfu-util",
    "pyocd": "pip install pyocd",
    "esptool": "pip install esptool",
}


def program_of(tool: str) -> str | None:
    return next(filter(None, map(shutil.which, _PROGRAMS.get(tool, (tool,)))), None)


def tools_for(board: Board, device: Device) -> list[str]:
    """The board's tools that can go through this device, in the order of its file."""
    tools = list(board.flash.tools) if board.flash else []
    return [tool for tool in tools if tool == "esptool" or (tool == "dfu-util") == (device.usb == DFU)]


def choose_tool(board: Board, device: Device, wanted: str | None = None) -> str:
    """The first tool that is installed, or `wanted`. Raises ConfigError with the command that installs one."""
    able = tools_for(board, device)
    if wanted is not None and wanted not in able:
        raise ConfigError(
            f"{board.name} is not flashed by {wanted} through {device.usb}. Take one of: {', '.join(able) or 'none'}."
        )
    tools = [wanted] if wanted else able
    for tool in tools:
        if program_of(tool):
            return tool
    if not tools:
        raise ConfigError(f"{board.name}: no tool of its file [flash] goes through {device.usb}. Add one there.")
    raise ConfigError(f"{board.name} is flashed by {' or '.join(tools)}, and none is installed. {PACKAGES[tools[0]]}")


def command_of(tool: str, made: Made, device: Device) -> list[str]:
    """Writes the image to the board behind this device and starts it. Raises ConfigError for what cannot be named."""
    board = made.board
    assert board.flash is not None
    name, program = board.flash.tools[tool], program_of(tool) or tool  # type: ignore[index]
    if tool != "esptool" and not device.serial:
        raise ConfigError(f"the device at {device.place} has no serial number, so {tool} cannot be told which it is.")
    (start, image), *_ = made.parts
    makers: dict[str, Callable[[], list[str]]] = {
        "st-flash": lambda: ["--serial", device.serial, "--reset", "write", str(image), f"{start:#010x}"],
        "openocd": lambda: [
            *("-f", "interface/stlink.cfg", "-c", f"adapter serial {device.serial}", "-f", f"target/{name}.cfg"),
            *("-c", f"program {{{image}}} {start:#010x} verify reset exit"),
        ],
        "pyocd": lambda: ["flash", "-u", device.serial, "-t", name, "-a", f"{start:#010x}", str(image)],
        "dfu-util": lambda: [
            *("-d", device.usb, "-S", device.serial, "-a", "0", "-s", f"{start:#010x}:leave", "-D", str(image))
        ],
        "esptool": lambda: [
            *("--chip", name, "--port", device.ports[0], "--baud", str(ESP_BAUD), "write_flash"),
            *(word for at, part in made.parts for word in (f"{at:#x}", str(part))),
        ],
    }
    return [program, *makers[tool]()]


def succeeded(tool: str, code: int, said: str) -> bool:
    """dfu-util fails to hear of a chip that has left its loader, as it was told to, and says so by its exit code."""
    return code == 0 or (tool == "dfu-util" and "File downloaded successfully" in said)


def chips_seen() -> dict[str, int]:
    """Chips behind ST-LINKs, by the probe's serial number, as st-info reads them; empty where it is not installed."""
    program = shutil.which("st-info")
    if not program:
        return {}
    done = subprocess.run([program, "--probe"], capture_output=True, text=True, timeout=30, check=False)
    found: dict[str, int] = {}
    serial = ""
    for line in done.stdout.splitlines():
        if match := re.match(r"\s*serial:\s*(\S+)", line):
            serial = match[1]
        elif (match := re.match(r"\s*chipid:\s*0x([0-9a-fA-F]+)", line)) and serial:
            found[serial] = int(match[1], 16)
    return found


_SIGNS = (
    (r"LIBUSB_ERROR_ACCESS|Permission denied|[Aa]ccess denied|EACCES|insufficient permissions", "permission"),
    (r"LIBUSB_ERROR_BUSY|[Rr]esource busy|already in use|could not open port.*[Bb]usy", "busy"),
    (r"Failed to connect|No serial data received|Wrong boot mode|target (not|held)|[Uu]nable to connect", "silent"),
)


def advice(tool: str, said: str, device: Device) -> str:
    """What a tool's complaint means and what to do; the complaint itself where it says nothing that is known."""
    kind = next((kind for pattern, kind in _SIGNS if re.search(pattern, said)), "")
    if kind == "permission" and tool == "esptool":
        return usb.group_advice(device.ports[0])
    if kind == "permission":
        return f"you may not open {device.product or device.usb} {device.name}. {usb.udev_advice(device.usb)}"
    if kind == "busy":
        held = usb.holders(device.node) if device.node else []
        who = ", ".join(f"{name} (process {number})" for number, name in held) or "another program (a debugger, an IDE)"
        return f"{who} has {device.name} open. Close that program."
    if kind == "silent":
        return "the chip does not answer. Hold BOOT (or BOOT0) while you press reset, and look at the board's power."
    last = [line for line in said.strip().splitlines() if line.strip()][-3:]
    return "the tool said: " + " / ".join(last) if last else "the tool said nothing."
