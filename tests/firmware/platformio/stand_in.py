"""PlatformIO without its registry: stand-ins for platforms and tools, so that firmware/platformio.ini builds as it is.

They build with compilers on PATH and know of each board what the build needs. What they prove is that the ini, its
scripts and the sources fit together; not that PlatformIO's own platforms do the same with them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FIRMWARE = HERE.parents[2] / "firmware"
ARDUINO = HERE.parent / "stand_in" / "arduino"
SCONS = "4.41101.0"  # what platformio 6.2 wants of these two (platformio/dependencies.py)
CPPCHECK = "1.21100.0"
ARM_GCC = "1.120301.0"  # what the ini asks for; the compiler on PATH stands in

CORTEX_M4 = "-mthumb -mcpu=cortex-m4"
M4F = "-mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard"
M7 = "-mthumb -mcpu=cortex-m7 -mfpu=fpv4-sp-d16 -mfloat-abi=hard"
# platform -> board -> how to compile, flash, RAM; for want of a compiler for the ESP32s this computer's stands in
BOARDS = {
    "ststm32": {
        "netduino2plus": (CORTEX_M4, 1 << 20, 128 << 10),
        "nucleo_f446re": (M4F, 512 << 10, 128 << 10),
        "blackpill_f411ce": (M4F, 512 << 10, 128 << 10),
        "nucleo_h743zi": (M7, 2 << 20, 512 << 10),
        "disco_f746ng": (M7, 1 << 20, 320 << 10),
        "nucleo_l4r5zi": (M4F, 2 << 20, 640 << 10),
    },
    "espressif32": {
        "esp32dev": ("", 1280 << 10, 320 << 10),
        "esp32-s3-devkitc-1": ("", 3 << 20, 320 << 10),
        "esp32-c3-devkitm-1": ("", 1280 << 10, 320 << 10),
    },
    "native": {},
}
PREFIX = {"ststm32": "arm-none-eabi-", "espressif32": "", "native": ""}
ARCH = {"ststm32": "ARDUINO_ARCH_STM32", "espressif32": "ARDUINO_ARCH_ESP32", "native": ""}


def make(folder: Path) -> dict[str, str]:
    """Writes the stand-ins; the environment in which PlatformIO takes them and leaves all others alone."""
    for platform, boards in BOARDS.items():
        place = folder / "platforms" / platform
        # who has a tool to upload with has boards: pio test uploads to those before it listens
        tools = {"tool-stand-in": {"type": "uploader", "optional": True, "version": "*"}} if boards else {}
        frameworks = {"arduino": {"script": "builder/arduino.py"}} if boards else {}
        _package(
            place, "platform", platform, "19.5.0", frameworks=frameworks, packages=tools, engines={"platformio": "^6"}
        )
        (place / "builder").mkdir()
        shutil.copyfile(HERE / "builder.py", place / "builder" / "main.py")
        shutil.copyfile(HERE / "arduino.py", place / "builder" / "arduino.py")
        (place / "boards").mkdir()
        for board, (machine, flash, ram) in boards.items():
            core = ARDUINO / ("bare" if PREFIX[platform] else "host")
            build = {"prefix": PREFIX[platform], "machine": machine, "f_cpu": "1", "mcu": board}
            build |= {"arch": ARCH[platform], "stand_in": str(core)}
            described = {
                "name": board,
                "vendor": "stand-in",
                "url": "",
                "frameworks": ["arduino"],
                "build": build,
                "upload": {"maximum_size": flash, "maximum_ram_size": ram},
            }
            (place / "boards" / f"{board}.json").write_text(json.dumps(described))
    packages = folder / "packages"
    _package(packages / "tool-scons", "tool", "tool-scons", SCONS)
    (packages / "tool-scons" / "scons.py").write_text(
        "import sys\nimport SCons.Script\n\nsys.exit(SCons.Script.main())\n"
    )
    _package(packages / "toolchain-gccarmnoneeabi", "tool", "toolchain-gccarmnoneeabi", ARM_GCC)
    _package(packages / "tool-stand-in", "tool", "tool-stand-in", "1.0.0")
    _package(packages / "tool-cppcheck", "tool", "tool-cppcheck", CPPCHECK)
    if cppcheck := shutil.which("cppcheck"):
        (packages / "tool-cppcheck" / "cppcheck").symlink_to(cppcheck)
    places = {name: str(folder / name.lower()) for name in ("PLATFORMS", "PACKAGES", "CACHE", "BUILD")}
    return {
        **os.environ,
        **{f"PLATFORMIO_{name}_DIR": place for name, place in places.items()},
        "PLATFORMIO_CORE_DIR": str(folder),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL": "100000",
        "http_proxy": "http://127.0.0.1:9",  # what asks for a registry all the same ends at once
        "https_proxy": "http://127.0.0.1:9",
    }


def _package(place: Path, kind: str, name: str, version: str, **more: object) -> None:
    place.mkdir(parents=True)
    file = "platform.json" if kind == "platform" else "package.json"
    (place / file).write_text(json.dumps({"name": name, "version": version, "title": name, "description": "", **more}))
    spec = {"owner": "platformio", "id": None, "name": name, "requirements": None, "uri": None}
    (place / ".piopm").write_text(json.dumps({"type": kind, "name": name, "version": version, "spec": spec}))


def pio(environment: dict[str, str], *words: str, project: Path = FIRMWARE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "platformio", *words, "-d", str(project)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
