"""A new board on a known port: the file of a board with the same kind of chip, with what differs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedtiny.boards import board_files, load_board
from fedtiny_export.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}")
OF_THE_OTHER = ("platformio", "documents")
"""What a new board does not take over: another environment's name, another chip's data sheets."""

IN_HEXADECIMAL = ("origin", "bytes", "chip_id")

QUESTIONS = {
    "title": "What is it, in words",
    "mcu": "Chip",
    "clock_hz": "Its processor's clock in Hz",
    "memory.flash.bytes": "Bytes of flash that the image may take (the record's sectors apart)",
    "memory.banks.0.bytes": "Bytes of the first bank of RAM, in one piece",
    "node.defines.STM32_HSE_HZ": "Its crystal in Hz",
    "node.defines.STM32_HSE_BYPASS": "1 if a finished clock comes in place of a crystal, else 0",
    "node.defines.STM32_UART": "Its UART: 1 at PA9 and PA10, 2 at PA2 and PA3",
    "documents": "The data sheets that say so",
}


def start(like: str, folder: Path | None) -> dict[str, Any]:
    """The table to begin with. Raises ConfigError for a board that does not exist or cannot be taken as a pattern."""
    board = load_board(like, folder)
    if board.built_by != "fedtiny":
        raise ConfigError(
            f"{like} is not built here, so nothing can be built like it. Take a board that fedtiny builds "
            "(fedtiny boards), or write firmware/platformio.ini's environment first."
        )
    table = tomllib.loads(board_files(folder)[like].read_text("utf-8"))
    return {key: value for key, value in table.items() if key not in OF_THE_OTHER} | {"documents": []}


def answer(table: Mapping[str, Any], key: str) -> str | None:
    """What stands at a dotted key, as a person would type it; None: nothing does."""
    found: Any = table
    for part in key.split("."):
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError):
            return None
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def parse_value(text: str) -> tuple[str, Any]:
    """KEY=VALUE: a value of TOML, or a text as it is. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: write KEY=VALUE, such as memory.flash.bytes=0x4_0000.")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def write(name: str, table: dict[str, Any], given: Sequence[tuple[str, Any]], *, like: str, folder: Path) -> Path:
    """Writes the board's file and checks it; one that cannot be used is not left behind. Raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no board's name: letters, digits, _ . and -, at most 31.")
    path = folder / f"{name}.toml"
    shipped = name in board_files(folder if folder.is_dir() else None)
    if path.exists() or shipped:
        raise ConfigError(f"there is a board {name} already. Choose another name, or change {path} by hand.")
    for key, value in given:
        _put(table, key, value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Begun by fedtiny board new from {like}.\n{to_toml(table)}", "utf-8")
    except OSError as problem:
        raise ConfigError(f"cannot write {path}: {problem.strerror}. Choose another folder with --boards.") from None
    try:
        load_board(path)
    except ConfigError:
        path.unlink()
        raise
    return path


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    inside: Any = table
    for part in sections:
        try:
            inside = inside[int(part)] if isinstance(inside, list) else inside.setdefault(part, {})
        except (IndexError, ValueError, AttributeError):
            raise ConfigError(f"there is no place {key} in a board's file.") from None
    kept = inside.get(last) if isinstance(inside, dict) else None
    if key == "documents" and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(kept, str):
        value = str(value)
    if not isinstance(inside, dict):
        raise ConfigError(f"there is no place {key} in a board's file.")
    inside[last] = value


def to_toml(table: Mapping[str, Any], section: str = "") -> str:
    """The table as TOML: its own values, then its sections."""
    lines = [f"{_key(key)} = {_value(value, key)}" for key, value in table.items() if not isinstance(value, dict)]
    if section and (lines or not table):
        lines.insert(0, f"\n[{section}]")
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(to_toml(value, f"{section}.{_key(key)}" if section else _key(key)).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any, key: str = "") -> str:
    if key in IN_HEXADECIMAL:
        return f"{value:#x}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner, key)}" for key, inner in value.items()) + " }"
    return str(value)
