"""Writes the first 8 bytes of an image's SHA-256 behind its mark, as host/fedtiny/images.py does."""

import hashlib
from pathlib import Path

Import("env")  # noqa: F821 -- SCons puts both names here

MARK = b"fedtiny:" + bytes(8)


def sign(target, source, env):
    elf = Path(str(target[0]))
    image = elf.read_bytes()
    if image.count(MARK) != 1:
        raise SystemExit(f"{elf}: the mark of a node image is not in it just once")
    elf.write_bytes(image.replace(MARK, MARK[:8] + hashlib.sha256(image).digest()[:8]))


env.AddPostAction("$BUILD_DIR/${PROGNAME}.elf", env.VerboseAction(sign, "Signing $TARGET"))  # noqa: F821
