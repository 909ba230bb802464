"""The builder of the stand-in platforms (stand_in.py): compilers on PATH, flags as the real platforms give them."""

from pathlib import Path

from SCons.Script import Builder, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig() if "BOARD" in env else None
prefix = board.get("build.prefix") if board else ""

env.Replace(
    AR=prefix + "gcc-ar",
    AS=prefix + "gcc",
    CC=prefix + "gcc",
    CXX=prefix + "g++",
    LINK=prefix + "gcc",
    OBJCOPY=prefix + "objcopy",
    RANLIB=prefix + "gcc-ranlib",
    SIZETOOL=prefix + "size",
    COMPILATIONDB_PATH="$BUILD_DIR/compile_commands.json",
    PROGSUFFIX=".elf" if board else "",
    PROGNAME="firmware" if board else "program",
    SIZEPROGREGEXP=r"^(?:\.text|\.data|\.rodata|\.ARM.exidx)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.data|\.bss|\.stack)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
)
env.Append(ASPPFLAGS=["-x", "assembler-with-cpp"])
if board:
    machine = board.get("build.machine").split()
    sections = ["-Os", "-ffunction-sections", "-fdata-sections", "-Wall"]
    env.Append(ASFLAGS=machine, CCFLAGS=[*sections, *machine], LINKFLAGS=["-Os", "-Wl,--gc-sections", *machine])
    env.Append(CXXFLAGS=["-fno-rtti", "-fno-exceptions"], CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")], LIBS=["c", "m"])
    if prefix:
        env.Append(ASPPFLAGS=machine, LIBS=["gcc"])
    if board.get("build.ldscript", ""):
        env.Replace(LDSCRIPT_PATH=board.get("build.ldscript"))

program = env.BuildProgram()
targets = [program]
if board:
    action = env.VerboseAction("$OBJCOPY -O binary $SOURCES $TARGET", "Building $TARGET")
    env.Append(BUILDERS={"ElfToBin": Builder(action=action, suffix=".bin")})
    image = env.ElfToBin(str(Path("$BUILD_DIR", "${PROGNAME}")), program)
    env.Depends(image, "checkprogsize")
    targets.append(image)
    env.AddPlatformTarget("upload", image, env.VerboseAction("$UPLOADCMD", "Uploading $SOURCE"), "Upload")
Default(targets)
