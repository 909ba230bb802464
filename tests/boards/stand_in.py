"""Stand-ins for the programs that write to chips. Each takes the words that the real one takes, and writes to a board
that is a folder of the bench: `python stand_in.py NAME ARGUMENTS...`, with BENCH in the environment.

A board's `state` says what happens: no-permission, unplugged-midway, fails-once, leaves-unheard; reconnects: its port
goes away when it is started, and comes back a second later by another name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

BENCH = Path(os.environ.get("BENCH", "."))


def boards() -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text()) | {"folder": path.parent} for path in sorted(BENCH.glob("boards/*/board.json"))
    ]


def board_with(key: str, value: str) -> dict[str, Any]:
    found = [board for board in boards() if board[key] == value and plugged_in(board)]
    if len(found) != 1:
        fail(f"Couldn't find one device with {key} {value}: {len(found)}")
    return found[0]


def plugged_in(board: dict[str, Any]) -> bool:
    return (BENCH / "sys" / board["place"]).is_dir()


def fail(said: str) -> NoReturn:
    print(said, file=sys.stderr)
    sys.exit(1)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def write(board: dict[str, Any], address: int, image: Path, denied: str) -> None:
    """The bytes of the image, or what the board's state makes of it."""
    folder: Path = board["folder"]
    with (folder / "writes").open("a") as log:
        log.write(f"{time.monotonic()} {address:#x}\n")
    if board["state"] == "no-permission":
        fail(denied)
    if board["state"] == "fails-once" and len((folder / "writes").read_text().splitlines()) == 1:
        fail("Failed to connect to target")
    data = image.read_bytes()
    if board["state"] == "unplugged-midway":
        (folder / f"{address:#x}.part").write_bytes(data[: len(data) // 2])
        shutil.rmtree(BENCH / "sys" / board["place"])
        fail("libusb_bulk_transfer failed: LIBUSB_ERROR_NO_DEVICE")
    time.sleep(2 if board["state"] == "slow" else 0.1)
    (folder / f"{address:#x}").write_bytes(data)
    with (folder / "writes").open("a") as log:
        log.write(f"{time.monotonic()} end\n")


def reconnect(sysfs: Path, port: Path) -> None:
    terminal = port.readlink()
    [entry] = sysfs.glob("*/tty/*")
    port.unlink()
    entry.rmdir()
    if os.fork() == 0:
        os.setsid()
        os.close(1)
        os.close(2)
        time.sleep(1)
        port.with_name(f"{port.name}9").symlink_to(terminal)
        entry.with_name(f"{port.name}9").mkdir()
        os._exit(0)


def st_flash(words: list[str]) -> None:
    assert words[2:4] == ["--reset", "write"], words
    write(
        board_with("serial", option(words, "--serial")), int(words[5], 16), Path(words[4]),
        "libusb: error [get_usbfs_fd] libusb couldn't open USB device: LIBUSB_ERROR_ACCESS",
    )  # fmt: skip


def st_info(words: list[str]) -> None:
    assert words == ["--probe"], words
    for board in filter(plugged_in, boards()):
        if board["usb"] in ("0483:374b", "0483:374e"):
            print(f"  version:    V2J37S26\n  serial:     {board['serial']}\n  chipid:     {board['chip']:#05x}")


def openocd(words: list[str]) -> None:
    said = " ".join(words)
    serial, program = re.search(r"adapter serial (\S+)", said), re.search(r"program \{(.+)\} (0x[0-9a-f]+)", said)
    assert serial, words
    assert program, words
    write(
        board_with("serial", serial[1]),
        int(program[2], 16),
        Path(program[1]),
        "Error: libusb_open: LIBUSB_ERROR_ACCESS",
    )


def pyocd(words: list[str]) -> None:
    assert words[0] == "flash", words
    assert option(words, "-t").startswith("stm32"), words
    address = int(option(words, "-a"), 16)
    write(board_with("serial", option(words, "-u")), address, Path(words[-1]), "usb.core.USBError: Access denied")


def dfu_util(words: list[str]) -> None:
    """Of a chip that left its loader it may hear nothing any more, and then its exit code is 74."""
    board = board_with("serial", option(words, "-S"))
    assert board["usb"] == option(words, "-d"), words
    address, leave = option(words, "-s").split(":")
    assert leave == "leave", words
    write(board, int(address, 16), Path(option(words, "-D")), "Cannot open DFU device: LIBUSB_ERROR_ACCESS")
    print("File downloaded successfully")
    if board["state"] == "leaves-unheard":
        sys.exit(74)


def esptool(words: list[str]) -> None:
    board = board_with("port", option(words, "--port"))
    if option(words, "--chip") != board["chip"]:
        fail(f"A fatal error occurred: This chip is {board['chip']}, not {option(words, '--chip')}. Wrong argument?")
    pairs = words[words.index("write_flash") + 1 :]
    for address, image in zip(pairs[::2], pairs[1::2], strict=True):
        write(
            board, int(address, 16), Path(image), f"could not open port {board['port']}: [Errno 13] Permission denied"
        )
    if board["state"] == "reconnects":
        reconnect(BENCH / "sys" / board["place"], Path(board["port"]))


def pio(words: list[str]) -> None:
    """Builds an image that says which board it is for, as a real one does."""
    name = option(words, "-e")
    out = Path(os.environ["PLATFORMIO_WORKSPACE_DIR"]) / "build" / name
    out.mkdir(parents=True, exist_ok=True)
    for file in ("firmware.elf", "firmware.bin", "bootloader.bin", "partitions.bin"):
        (out / file).write_bytes(f"{file}: fedtiny node on {name}\r\n".encode())
    print("RAM:   [=         ]  11.3% (used 36964 bytes from 327680 bytes)")
    print("Flash: [==        ]  21.0% (used 275101 bytes from 1310720 bytes)")


if __name__ == "__main__":
    {
        "st-flash": st_flash, "st-info": st_info, "openocd": openocd, "pyocd": pyocd, "dfu-util": dfu_util,
        "esptool": esptool, "pio": pio,
    }[sys.argv[1]](sys.argv[2:])  # fmt: skip
