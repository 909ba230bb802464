"""Commands on boards: list, describe a new one, build, flash, watch, and what is missing here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedtiny.commands import AsJson, command, print_json, say
from fedtiny_export.errors import ConfigError

if TYPE_CHECKING:
    from fedtiny.boards import Board
    from fedtiny.flash.flashing import Outcome
    from fedtiny.flash.make import Made

FAILED = 1

BoardFolder = Annotated[
    Path | None, typer.Option("--boards", metavar="DIR", help="Folder of your own boards.", show_default="./boards")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the images.")]
IMAGES = Path("build/boards")


def add_to(app: typer.Typer) -> None:
    """Puts these commands into the whole."""
    app.command("boards")(boards)
    one = typer.Typer(help="Write down a board that is not listed.", no_args_is_help=True)
    one.command("new")(board_new)
    app.add_typer(one, name="board")
    app.command("build")(build)
    app.command("flash")(flash)
    app.command("monitor")(monitor)
    app.command("doctor")(doctor)


def add_to_fleet(fleet: typer.Typer) -> None:
    fleet.command("scan")(scan)


@command
def boards(folder: BoardFolder = None, as_json: AsJson = False) -> None:
    """List the boards: core, floating point, memory, how a node for each is built, whether it is emulated.

    [bold]fedtiny boards[/] · [bold]fedtiny boards --boards my-boards[/]
    """
    from fedtiny.boards import board_names, load_board

    rows = [_row(load_board(name, folder)) for name in board_names(folder)]
    if as_json:
        print_json({"boards": rows})
        return
    from fedtiny.commands.tables import print_boards

    print_boards(rows)


def _row(board: Board) -> dict[str, Any]:
    memory = board.memory
    return {
        "board": board.name,
        "title": board.title,
        "mcu": board.mcu,
        "core": board.core,
        "fpu": board.fpu,
        "clock_hz": board.clock_hz,
        "flash_bytes": memory.flash.bytes if memory else None,
        "banks": {bank.name: bank.bytes for bank in memory.banks} if memory else {},
        "built_by": board.built_by,
        "emulated": board.emulator is not None,
        "flashed_by": list(board.flash.tools) if board.flash else [],
        "trains": not board.no_training,
        "no_training": board.no_training or None,
        "documents": list(board.documents),
    }


@command
def board_new(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The board's name, which is its file's.")] = None,
    like: Annotated[str | None, typer.Option(metavar="BOARD", help="A board with the same kind of chip.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="A value of the file, in TOML; may be repeated."),
    ] = None,
    folder: BoardFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write the file of a new board on a known port, and check it. Asks what is not given.

    [bold]fedtiny board new[/] · [bold]fedtiny board new mine --like nucleo_f446re -s memory.banks.0.bytes=0x1_0000[/]
    """
    from fedtiny.boards import board_names
    from fedtiny.newboard import QUESTIONS, answer, parse_value, start, write

    asks = name is None or like is None
    given = [parse_value(text) for text in setting or []]
    if name is None:
        name = typer.prompt("Name of the board, such as my_f446")
    if like is None:
        say(f"Boards: {', '.join(board_names(folder))}")
        like = typer.prompt("Which of them has the same kind of chip")
    table = start(like, folder)
    for key, words in QUESTIONS.items() if asks else ():
        before = answer(table, key)
        if before is not None and key not in dict(given):
            given.append(parse_value(f"{key}={typer.prompt(words, default=before)}"))
    path = write(name, table, given, like=like, folder=folder or Path("boards"))
    if as_json:
        print_json({"board": name, "file": str(path)})
        return
    typer.echo(f"{path} is written and checked. Next: fedtiny build {name}; look at its [flash] before you flash it.")


@command
def build(
    board: Annotated[str, typer.Argument(metavar="BOARD")],
    model: Annotated[
        Path | None,
        typer.Option(metavar="RUN | FILE.ftm", help="A model that must fit the board, or nothing is built."),
    ] = None,
    work: Annotated[Literal["train", "infer"], typer.Option("--for", help="What the model is to do there.")] = "train",
    samples_bytes: Annotated[int, typer.Option(min=0, help="Memory that the node's samples take.")] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Of the training; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train where the board's file says why not to.")] = False,
    app: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="C sources beside the node: an application with samples."),
    ] = None,
    out: Out = IMAGES,
    folder: BoardFolder = None,
    as_json: AsJson = False,
) -> None:
    """Build a board's node and print what it takes of flash and RAM.

    [bold]fedtiny build qemu-netduinoplus2[/] · [bold]fedtiny build nucleo_f446re --model runs/quick-s0-1[/]
    """
    from fedtiny.boards import load_board
    from fedtiny.flash.make import make

    its = load_board(board, folder)
    if model is not None:
        from fedtiny.flash.fit import refuse_unfit

        refuse_unfit(its, model, work=work, samples_bytes=samples_bytes, force=force, settings=setting or [])
    made = make(its, out, app=app)
    if as_json:
        print_json(_image(made))
        return
    typer.echo(f"{made.elf}\n{_size(made)}")
    if its.emulator:
        typer.echo(f'In a fleet file: link = "qemu:{board}:{made.elf}"')
    elif its.flash:
        typer.echo(f"Onto the board: fedtiny flash {board}")


def _image(made: Made) -> dict[str, Any]:
    return {
        "board": made.board.name,
        "elf": str(made.elf),
        "parts": [{"address": address, "file": str(path)} for address, path in made.parts],
        "flash_bytes": made.size.flash,
        "ram_bytes": made.size.ram,
        "firmware": made.firmware.hex() if made.firmware else None,
    }


def _size(made: Made) -> str:
    memory = made.board.memory
    if memory is None:
        return f"flash {made.size.flash:,} bytes, RAM {made.size.ram:,}"
    ram = memory.banks[0]
    stack = memory.stack_bytes if made.board.node else 0
    left = ram.bytes - made.size.ram - stack
    return (
        f"flash {made.size.flash:,} of {memory.flash.bytes:,} bytes · RAM {made.size.ram:,} of {ram.bytes:,} "
        f"({ram.name})" + (f", stack {stack:,}" if stack else "") + f", {left:,} left for samples and model"
    )


@command
def flash(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[BOARD[@SERIALNUMBER]]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every board that is plugged in.")] = False,
    fleet: Annotated[
        Path | None, typer.Option(metavar="FLEET.toml", help="Says which board has which serial number.")
    ] = None,
    tool: Annotated[str | None, typer.Option(help="The tool to take, of those in the board's file.")] = None,
    answer_s: Annotated[float, typer.Option(min=0.1, help="How long a board may take to say who it is.")] = 8.0,
    out: Out = IMAGES,
    folder: BoardFolder = None,
    as_json: AsJson = False,
) -> None:
    """Build once, flash many at the same time, and read back from each which board it is.

    [bold]fedtiny flash nucleo_f446re[/] · [bold]fedtiny flash nucleo_f446re@066BFF51 esp32dev[/] ·
    [bold]fedtiny flash --all --fleet lab.toml[/]
    """
    from fedtiny.boards import board_names, load_board
    from fedtiny.flash import flashing, usb
    from fedtiny.flash.make import make
    from fedtiny.flash.tools import chips_seen

    if everything == bool(targets):
        raise ConfigError("name the boards, or say --all: fedtiny flash BOARD[@SERIALNUMBER]... | --all")
    known = {name: load_board(name, folder) for name in board_names(folder)}
    found = flashing.find_targets(
        targets or [], known, usb.plugged(), everything=everything, chips=chips_seen(), known=_boards_of(fleet),
    )  # fmt: skip
    images = {}
    for target in found:
        if target.board.name not in images:
            say(f"building {target.board.name}")
            images[target.board.name] = make(target.board, out)

    def tell(outcome: Outcome) -> None:
        if not as_json:
            say(f"{outcome.target.name}: {outcome.state}" + (f": {outcome.problem}" if outcome.problem else ""))

    outcomes = flashing.flash_all(found, images, tool=tool, answer_s=answer_s, done=tell)
    if as_json:
        print_json({"images": [_image(made) for made in images.values()], "boards": [_outcome(o) for o in outcomes]})
    else:
        from fedtiny.commands.tables import print_flashed

        print_flashed([_outcome(outcome) for outcome in outcomes])
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(FAILED)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    target, seen = outcome.target, outcome.seen
    return {
        "board": target.board.name,
        "serial": target.device.serial or None,
        "port": target.port,
        "node": target.node or None,
        "tool": outcome.tool,
        "tries": outcome.tries,
        "state": outcome.state,
        "device": seen.device if seen else None,
        "firmware": seen.firmware.hex() if seen and seen.firmware else None,
        "problem": outcome.problem or None,
    }


def _boards_of(fleet: Path | None) -> dict[str, tuple[str, str]]:
    """Board and node by USB serial number, as far as a fleet file says both."""
    if fleet is None:
        return {}
    from fedtiny.fleet.roster import read_roster

    roster = read_roster(fleet)
    found = {}
    for node, table in roster.table.nodes.items():
        kind, _, rest = table.link.partition(":")
        if table.board and kind == "serial":
            found[rest.partition("@")[0]] = (table.board, node)
    return found


@command
def monitor(
    where: Annotated[str, typer.Argument(metavar="PORT | SERIALNUMBER | LINK | NODE")],
    fleet: Annotated[Path | None, typer.Option(metavar="FLEET.toml", help="The file that names NODE.")] = None,
    baud: Annotated[int, typer.Option(min=1)] = 115_200,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long.", show_default="Ctrl-C")] = None,
) -> None:
    """Show what a board says: its text as it is, frames of the wire by name.

    [bold]fedtiny monitor /dev/ttyACM0[/] · [bold]fedtiny monitor n1 --fleet lab.toml[/]
    """
    import asyncio

    from fedtiny.link.links import open_link
    from fedtiny.link.look import watch

    if fleet is not None:
        from fedtiny.fleet.roster import read_roster

        roster = read_roster(fleet)
        if where not in roster.nodes:
            raise ConfigError(f"{fleet} has no node {where}. It has: {', '.join(roster.nodes)}.")
        link = roster.link(where)
    elif ":" in where:
        link = open_link(where)
    else:
        link = open_link(f"serial:{where}@{baud}")
    asyncio.run(watch(link, typer.echo, seconds=seconds))


@command
def scan(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each port may take to answer.")] = 2.0,
    baud: Annotated[int, typer.Option(min=1)] = 115_200,
    folder: BoardFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what is plugged in: USB ids, ports, which boards these may be, and which of them answer.

    [bold]fedtiny fleet scan[/]
    """
    from fedtiny.boards import board_names, load_board
    from fedtiny.flash.scanning import scanned

    rows = scanned([load_board(name, folder) for name in board_names(folder)], baud=baud, patience_s=seconds)
    if as_json:
        print_json({"devices": rows})
        return
    from fedtiny.commands.tables import print_scanned

    print_scanned(rows)


@command
def doctor(folder: BoardFolder = None, as_json: AsJson = False) -> None:
    """Say what is missing here for boards, emulators and brokers, and the command that mends it; exit code 1 if so.

    [bold]fedtiny doctor[/]
    """
    from fedtiny.doctor import examine

    checks = examine(folder)
    wrong = [check for check in checks if not check.good]
    if as_json:
        print_json({"good": not wrong, "checks": [check.as_json() for check in checks]})
    else:
        from fedtiny.commands.tables import print_checks

        print_checks([check.as_json() for check in checks], _together([check.mend for check in wrong]))
    if wrong:
        raise typer.Exit(FAILED)


APT = "sudo apt-get install -y --no-install-recommends "


def _together(commands: Sequence[str]) -> list[str]:
    """All packages of Debian by one command, then the rest."""
    packages = dict.fromkeys(p for line in commands if line.startswith(APT) for p in line.removeprefix(APT).split())
    rest = list(dict.fromkeys(line for line in commands if not line.startswith(APT)))
    return ([APT + " ".join(packages)] if packages else []) + rest
