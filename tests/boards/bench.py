"""A bench of boards without hardware: devices in a folder like sysfs, ports that are terminals, tools that stand in
(stand_in.py). What a board says on its port comes out of the image that was written to it.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
import threading
import tty
from pathlib import Path
from typing import Any

import pytest

from fedtiny.flash import usb
from fedtiny.images import MARK
from fedtiny.link.frames import FrameType, Noise, Splitter, seal_open, stuff, unseal
from fedtiny.link.messages import Hello, Invite, Profile, Reason, Refuse, decode, encode
from fedtiny_export.errors import MessageError

STAND_IN = Path(__file__).parent / "stand_in.py"
TOOLS = ("st-flash", "st-info", "openocd", "pyocd", "dfu-util", "esptool", "pio")


class Bench:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, tools: tuple[str, ...] = TOOLS) -> None:
        self.folder = folder
        self._boards: dict[int, tuple[Path, Splitter, bool]] = {}  # by the terminal's other end
        self._stop, self._wake = os.pipe()
        self._count = 0
        folder.mkdir()
        for name in ("sys", "dev", "boards", "bin"):
            (folder / name).mkdir()
        for tool in tools:
            script = folder / "bin" / tool
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} {tool} "$@"\n')
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("BENCH", str(folder))
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setattr(usb, "SYS", folder / "sys")
        monkeypatch.setattr(usb, "DEV", folder / "dev")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def plug(
        self, device: str, serial: str, *, chip: int | str = 0, port: str = "", state: str = "", enrolled: bool = False
    ) -> Path:
        """Plugs a board in; returns its folder. `device`: vendor:product."""
        self._count += 1
        place = f"1-{self._count}"
        sysfs = self.folder / "sys" / place
        folder = self.folder / "boards" / f"{self._count}-{serial}"
        folder.mkdir()
        (sysfs / f"{place}:1.2").mkdir(parents=True)
        vendor, _, product = device.partition(":")
        named = {"idVendor": vendor, "idProduct": product, "serial": serial, "product": "Stand-in", "busnum": "1"}
        for key, value in {**named, "devnum": str(self._count)}.items():
            (sysfs / key).write_text(f"{value}\n")
        path = ""
        if port:
            (sysfs / f"{place}:1.2" / "tty" / port).mkdir(parents=True)
            ours, theirs = os.openpty()
            tty.setraw(theirs)
            path = str(self.folder / "dev" / port)
            os.symlink(os.ttyname(theirs), path)
            self._boards[ours] = (folder, Splitter(), enrolled)
            self._keep = [*getattr(self, "_keep", []), theirs]
            os.write(self._wake, b"x")
        told: dict[str, Any] = {
            "usb": device, "serial": serial, "chip": chip, "place": place, "port": path, "state": state,
        }  # fmt: skip
        (folder / "board.json").write_text(json.dumps(told))
        return folder

    def close(self) -> None:
        os.write(self._wake, b"q")
        self._thread.join(5)
        for fd in (*self._boards, *getattr(self, "_keep", []), self._stop, self._wake):
            os.close(fd)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._stop, *self._boards], [], [])
            if self._stop in ready and os.read(self._stop, 1) == b"q":
                return
            for fd in set(ready) & set(self._boards):
                folder, splitter, enrolled = self._boards[fd]
                for piece in splitter.feed(os.read(fd, 4096)):
                    if not isinstance(piece, Noise):
                        self._answer(fd, folder, piece.frame, enrolled=enrolled)

    def _answer(self, fd: int, folder: Path, frame: bytes, *, enrolled: bool) -> None:
        image = b"".join(path.read_bytes() for path in sorted(folder.glob("0x*")) if path.suffix != ".part")
        named = re.search(rb"fedtiny node on ([\w-]+)", image)
        if named is None:
            return  # nothing was written: it is silent
        try:
            invite = decode(Invite, unseal(frame, from_host=True, session=0, cipher=None).payload)
        except MessageError:
            return
        if invite.profile is Profile.PSK and not enrolled:
            answer = seal_open(FrameType.REFUSE, encode(Refuse(Reason.NOT_ENROLLED, "new")), from_host=False)
        else:
            mark = image.find(MARK[:8])
            firmware = image[mark + 8 :][:8] if mark >= 0 else bytes(8)
            hello = encode(
                Hello(
                    1, bytes(16), "n1" if enrolled else "new", invite.profile, 0, 0, 1024, 1 << 16, 3, 1,
                    named[1].decode(), firmware, 0, 0, 0,
                )
            )  # fmt: skip
            answer = seal_open(FrameType.HELLO, hello + (bytes(16) if enrolled else b""), from_host=False)
        os.write(fd, b"\0" + stuff(answer))
