"""What the library is made of in a project of somebody's own: the lists of firmware/platformio.ini, and of the kernels
the kind that suits the processor. The project's option custom_fedtiny_kernels (portable, m4, vector) says otherwise."""

from configparser import RawConfigParser
from os.path import join

Import("env", "pio_lib_builder")  # noqa: F821 -- SCons puts these names here

WITH_FPU = {"-mcpu=cortex-m4", "-mcpu=cortex-m7", "-mcpu=cortex-m33"}

flags = {str(flag) for flag in env.get("CCFLAGS", [])}  # noqa: F821
tuned = bool(flags & WITH_FPU) and bool(flags & {"-mfloat-abi=hard", "-mfloat-abi=softfp"})
kernels = env.GetProjectOption("custom_fedtiny_kernels", "m4" if tuned else "portable")  # noqa: F821

ini = RawConfigParser(inline_comment_prefixes=(";",))
ini.read(join(pio_lib_builder.path, "platformio.ini"))  # noqa: F821
lists = ini["sources"]
if kernels not in ("portable", "m4", "vector"):
    raise SystemExit(f"custom_fedtiny_kernels = {kernels}: choose portable, m4 or vector")
parts = [lists["core"], lists[kernels], lists["wire"], lists["capture"]]
if "arduino" in env.get("PIOFRAMEWORK", []):  # noqa: F821
    parts.append(lists["arduino"])
    env.Append(CPPPATH=[join(pio_lib_builder.path, "port", "arduino", "src")])  # noqa: F821
env.Replace(SRC_FILTER=" ".join(parts).split())  # noqa: F821


def assembled(env, node):
    """An object of its own name: SCons would make x.o of x.c and of x.S."""
    return env.Object(target=f"{node.get_path()}.o", source=node)


env.AddBuildMiddleware(assembled, "*.S")  # noqa: F821
