"""What is plugged in: USB devices and their serial ports, as the system lists them; who holds and who may open them."""

from __future__ import annotations

import grp
import os
from dataclasses import dataclass
from pathlib import Path

SYS, DEV, PROC = Path("/sys/bus/usb/devices"), Path("/dev"), Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Device:
    """`usb`: vendor:product. `place`: bus and plugs, such as 1-1.4. `node`: what a tool without a port opens."""

    usb: str
    serial: str
    product: str
    place: str
    node: str
    ports: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How a person finds it again."""
        return self.serial or f"at {self.place}"


def plugged() -> list[Device]:
    """USB devices with what tells them apart; from pyserial, ports alone, where the system has no sysfs."""
    if not SYS.is_dir():
        return _by_pyserial()
    folders = sorted(path for path in SYS.iterdir() if (path / "idVendor").is_file())
    return [_device(folder) for folder in folders]


def _device(folder: Path) -> Device:
    ports = {path.name for shape in (":*/tty/tty*", ":*/ttyUSB*") for path in folder.glob(f"{folder.name}{shape}")}
    bus, number = (int(_said(folder, key) or 0) for key in ("busnum", "devnum"))
    return Device(
        usb=f"{_said(folder, 'idVendor')}:{_said(folder, 'idProduct')}".lower(),
        serial=_said(folder, "serial"),
        product=_said(folder, "product"),
        place=folder.name,
        node=str(DEV / "bus" / "usb" / f"{bus:03}" / f"{number:03}"),
        ports=tuple(str(DEV / name) for name in sorted(ports)),
    )


def _said(folder: Path, key: str) -> str:
    try:
        return (folder / key).read_text("utf-8", errors="replace").strip()
    except OSError:  # unplugged meanwhile, or it has none
        return ""


def _by_pyserial() -> list[Device]:
    from serial.tools.list_ports import comports

    return [
        Device(
            usb=f"{port.vid:04x}:{port.pid:04x}",
            serial=port.serial_number or "",
            product=port.product or "",
            place=port.location or port.device,
            node="",
            ports=(port.device,),
        )
        for port in comports()
        if port.vid is not None
    ]


def holders(path: str) -> list[tuple[int, str]]:
    """Processes, by number and name, that have the file open, as far as this user may see them."""
    wanted = os.path.realpath(path)
    found = []
    for entry in PROC.glob("[0-9]*/fd"):
        try:
            if wanted not in _open_files(entry) or int(entry.parent.name) == os.getpid():
                continue
            if _about_to_become_a_tool(entry.parent):
                continue
            if wanted in _open_files(entry):  # else it became the tool meanwhile and closed what it had
                found.append((int(entry.parent.name), (entry.parent / "comm").read_text().strip()))
        except OSError:  # another user's, or gone meanwhile
            continue
    return found


def _open_files(entry: Path) -> list[str]:
    return [os.path.realpath(link) for link in entry.iterdir()]


def _about_to_become_a_tool(process: Path) -> bool:
    """A copy of this program that has its open files until it starts the tool for another board."""
    parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return parent == os.getpid() and (process / "cmdline").read_bytes() == (PROC / "self" / "cmdline").read_bytes()


def may_open(path: str) -> bool:
    return os.access(path, os.R_OK | os.W_OK, effective_ids=True)


def port_advice(path: str) -> str | None:
    """What keeps this user from the port, and the command that mends it; None: nothing."""
    if not os.path.exists(path):
        return f"{path}: there is no such port. Plug the board in; fedtiny fleet scan shows what is there."
    if not may_open(path):
        return group_advice(path)
    held = holders(path)
    if held:
        who = ", ".join(f"{name} (process {number})" for number, name in held)
        ends = " ".join(str(number) for number, _ in held)
        return f"{path}: {who} has it open. Close that program, or: kill {ends}"
    return None


def group_advice(path: str) -> str:
    number = os.stat(path).st_gid
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    return (
        f"{path}: you may not open it: it belongs to the group {group}, and you are not in it. "
        f"Run: sudo usermod -aG {group} $USER, then log out and in again."
    )


def node_advice(device: Device) -> str | None:
    """What keeps this user from the USB device itself, and the command that mends it; None: nothing."""
    if not device.node or may_open(device.node) or not os.path.exists(device.node):
        return None
    return f"{device.product or device.usb} {device.name}: you may not open it. {udev_advice(device.usb)}"


def udev_advice(usb: str) -> str:
    vendor, _, product = usb.partition(":")
    rule = f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor}", ATTR{{idProduct}}=="{product}", TAG+="uaccess"'
    return (
        f"Run: echo '{rule}' | sudo tee /etc/udev/rules.d/70-fedtiny-{vendor}-{product}.rules && "
        "sudo udevadm control --reload && sudo udevadm trigger, then plug it in again."
    )
