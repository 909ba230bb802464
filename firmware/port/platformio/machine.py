"""PlatformIO hands build_flags to the compiler alone: what names the processor goes to assembler and linker, too."""

Import("env")  # noqa: F821 -- SCons puts both names here

machine = env.GetProjectOption("custom_machine").split()  # noqa: F821
whole = env.GetProjectOption("custom_whole_program").split()  # noqa: F821
apart = env.GetProjectOption("custom_apart").split()  # noqa: F821
env.Append(  # noqa: F821
    CCFLAGS=machine,
    ASPPFLAGS=machine,
    LINKFLAGS=[*machine, *whole, "-nostartfiles", "-Wl,--no-warn-rwx-segments"],
)


def assembled(env, node):
    """An object of its own name: SCons would make x.o of x.c and of x.S."""
    return env.Object(target=f"{node.get_path()}.o", source=node)


def compiled(env, node):
    """The compiler sees all of a program at once, but for start-up and what a program counts with."""
    return node if node.name in apart else env.Object(node, CCFLAGS=[*env["CCFLAGS"], *whole])


env.AddBuildMiddleware(assembled, "*.S")  # noqa: F821
env.AddBuildMiddleware(compiled, "*.c")  # noqa: F821
