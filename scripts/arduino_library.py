"""Writes the Arduino library: the core, the wire and FedtinyNode in one folder as Arduino's tools want it.

    python scripts/arduino_library.py FOLDER    # a new folder, or --zip FILE.zip for "Add .ZIP Library"

Those tools compile every source below src/, give a library no flags and no include path but src/. So here includes
become relative, sources that others include are no sources any more, each kernel's variant is guarded by the processor,
and a line on top of each C file keeps multiplications and additions apart: the same bits as any other node.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

from fedtiny.boards import root
from fedtiny.emulation import capture_sources, core_sources, wire_sources

M4 = "defined(__ARM_FEATURE_DSP) && defined(__ARM_FP)"  # Cortex-M4F, M7, M33 with their FPU in use
SAME_BITS = '#pragma GCC optimize("fp-contract=off", "no-math-errno")\n'
PLACES = {"include": "src", "src": "src/core", "lib": "src/lib", "port/arduino": "", "port": "src/port"}
INCLUDE = re.compile(r'^(\s*#\s*include\s+)"([^"]+)"', re.MULTILINE)


def write_library(folder: Path) -> None:
    """`folder` is made; it must not exist, or be empty."""
    firmware = root() / "firmware"
    portable, tuned = core_sources(), core_sources("m4")
    sources = [*portable, *(path for path in tuned if path not in portable), *wire_sources(), *capture_sources()]
    arduino = firmware / "port" / "arduino"
    sources += [firmware / "port" / "record.c", *sorted((arduino / "src").glob("*.cpp"))]
    included: dict[Path, set[Path]] = {}
    waiting = [*sources, *sorted((arduino / "src").glob("*.h")), *(firmware / "include").glob("*.h")]
    while waiting:
        path = waiting.pop()
        if path not in included:
            found = {name: _find(name, path, firmware) for _, name in INCLUDE.findall(path.read_text("utf-8"))}
            included[path] = {target for target in found.values() if target}
            waiting += included[path]
    for path in included:
        place = folder / _place(path, firmware, sources)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_text(path, firmware, sources, portable, tuned), "utf-8")
    for path in sorted(arduino.rglob("*")):
        if path.is_file() and path not in included:
            (folder / path.relative_to(arduino)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.relative_to(arduino))
    shutil.copyfile(firmware.parent / "LICENSE", folder / "LICENSE")
    for path in (firmware / "lib").rglob("LICENSE*"):
        shutil.copyfile(path, folder / "src" / path.relative_to(firmware))


def _find(name: str, path: Path, firmware: Path) -> Path | None:
    """Where the builds of nodes find it; None: a header of the compiler or of Arduino."""
    libraries = sorted(place for place in (firmware / "lib").iterdir() if place.is_dir())
    for place in (path.parent, firmware / "include", firmware / "port", firmware / "src", *libraries):
        if (place / name).is_file():
            return Path(os.path.normpath(place / name))
    return None


def _place(path: Path, firmware: Path, sources: list[Path]) -> PurePosixPath:
    inside = PurePosixPath(path.relative_to(firmware).as_posix())
    for start in sorted(PLACES, key=len, reverse=True):
        if inside.is_relative_to(start):
            inside = PurePosixPath(PLACES[start]) / inside.relative_to(start)
            break
    no_source = path.suffix == ".c" and path not in sources
    return inside.with_name(inside.name + ".inc") if no_source else inside


def _text(path: Path, firmware: Path, sources: list[Path], portable: list[Path], tuned: list[Path]) -> str:
    def relative(match: re.Match[str]) -> str:
        target = _find(match[2], path, firmware)
        if target is None:
            return match[0]
        here = _place(path, firmware, sources).parent
        return f'{match[1]}"{os.path.relpath(_place(target, firmware, sources), here)}"'

    text = INCLUDE.sub(relative, path.read_text("utf-8"))
    if path in sources and path.suffix == ".c":
        text = SAME_BITS + text
    if path in tuned and path not in portable:
        text = f"#if {M4}\n{text}#endif\n"
    elif path in portable and path not in tuned:
        text = f"#if !({M4})\n{text}#endif\n"
    return text


def main() -> None:
    reader = argparse.ArgumentParser(description="Writes the Arduino library.")
    reader.add_argument("folder", type=Path, nargs="?", help="a folder to make, as libraries/fedtiny in a sketchbook")
    reader.add_argument("--zip", type=Path, help="an archive to make")
    given = reader.parse_args()
    if (given.folder is None) == (given.zip is None):
        reader.error("give a folder or --zip FILE.zip")
    if given.folder is not None:
        if given.folder.exists() and any(given.folder.iterdir()):
            sys.exit(f"{given.folder} is not empty. Remove it or name another folder.")
        write_library(given.folder)
        return
    with tempfile.TemporaryDirectory() as place:
        write_library(Path(place) / "fedtiny")
        made = shutil.make_archive(str(given.zip.with_suffix("")), "zip", place, "fedtiny")
        print(made)


if __name__ == "__main__":
    main()
