"""The framework of the stand-in platforms: Arduino's declarations, and next to nothing behind them."""

from pathlib import Path

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()
core = Path(board.get("build.stand_in"))
env.Append(
    CPPPATH=[str(core.parent)],
    CPPDEFINES=[board.get("build.arch")],
    CFLAGS=["-std=gnu17"],
    CXXFLAGS=["-std=gnu++14"],
)
if board.get("build.prefix"):
    env.Append(LINKFLAGS=["--specs=nano.specs", "--specs=nosys.specs"])
env.Prepend(LIBS=[env.BuildLibrary("$BUILD_DIR/core", str(core), "+<*.cpp>")])
