"""What is plugged in and who answers there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fedtiny.boards import Board
from fedtiny.flash import usb
from fedtiny.flash.usb import Device
from fedtiny.link.links import SerialLink
from fedtiny.link.look import Seen, look
from fedtiny_export.errors import LinkError


def scanned(boards: Sequence[Board], *, baud: int, patience_s: float) -> list[dict[str, Any]]:
    """A row for each port, and for each device without one that boards are flashed through. All are asked together."""
    found = []
    for device in usb.plugged():
        names = [b.name for b in boards if device.usb in b.link.usb or (b.flash and device.usb in b.flash.usb)]
        if device.ports or names:
            found += [(device, names, port) for port in device.ports or (None,)]

    async def all_of_them() -> list[Seen | str | None]:
        return await asyncio.gather(*(_asked(device, port, baud, patience_s) for device, _, port in found))

    answers = asyncio.run(all_of_them())
    return [_row(device, names, port, answer) for (device, names, port), answer in zip(found, answers, strict=True)]


async def _asked(device: Device, port: str | None, baud: int, patience_s: float) -> Seen | str | None:
    if port is None:
        return usb.node_advice(device)
    problem = usb.port_advice(port)
    if problem:
        return problem
    try:
        return await look(SerialLink(port, baud), patience_s=patience_s)
    except LinkError as error:
        return str(error)


def _row(device: Device, names: list[str], port: str | None, answer: Seen | str | None) -> dict[str, Any]:
    seen = answer if isinstance(answer, Seen) else None
    return {
        "usb": device.usb,
        "product": device.product,
        "serial": device.serial or None,
        "port": port,
        "may_be": names,
        "node": seen.device if seen else None,
        "board": seen.board if seen else None,
        "firmware": seen.firmware.hex() if seen and seen.firmware else None,
        "problem": answer if isinstance(answer, str) else None,
    }
