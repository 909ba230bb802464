"""Commands on a trained or given model: write it in other forms, prove that they agree, plan it for a board."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedtiny.commands import WRONG, AsJson, command, print_json, say
from fedtiny_export.errors import ConfigError

DIFFERS = 1  # exit code
EMULATED = "qemu-mps2-an386"  # a Cortex-M4


class Purpose(StrEnum):
    """What a model is to do on a board."""

    INFER = "infer"
    INFER_INT8 = "infer-int8"
    TRAIN = "train"


Model = Annotated[Path, typer.Argument(metavar="RUN | FILE", help="A run's folder, or a .tflite, .onnx or .ftm file.")]
Samples = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Samples x (and labels y): .npz or .npy.", show_default="a run's own data"),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the data set's files.")]


def add_to(app: typer.Typer) -> None:
    """Puts these commands into the whole."""
    app.command("export")(export)
    app.command("verify")(verify)
    app.command("plan")(plan)


@command
def export(
    model: Model,
    to: Annotated[
        Literal["onnx", "tflite", "ftm", "c"], typer.Option(help="ONNX, TFLite, a node's blob, or C that infers.")
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Quantised: ONNX in QDQ form, TFLite, C.")] = False,
    kernels: Annotated[
        Literal["portable", "m4"], typer.Option(help="Of C: for any processor, or for a Cortex-M4, M7 or M33 with DSP.")
    ] = "portable",
    samples: Samples = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; for C a folder.", show_default="./NAME.onnx, ./NAME.tflite, ./NAME/"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that exist.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model for use elsewhere.

    [bold]fedtiny export RUN --to tflite --int8[/] · [bold]fedtiny export RUN --to c --out firmware/model[/]
    """
    from fedtiny.modelsource import open_source

    source = open_source(model, samples=samples, data_dir=data_dir)
    stem = f"{source.name}-int8" if int8 else source.name
    files: dict[str, bytes]
    if to == "c":
        from fedtiny_export.infer.c_out import to_c

        variant = "" if kernels == "portable" else kernels
        texts = to_c(source.network(int8=int8), source.c_name, variant=variant)
        folder = out or Path(source.name)
        files = {name: text.encode() for name, text in texts.items()}
    else:
        target = out or Path(f"{stem}.{to}")
        folder = target.parent
        if to == "ftm":
            if source.loaded.training is None or int8:
                raise ConfigError(
                    "a node's blob is a float model that fedtiny trained. Name a run, and leave out --int8."
                )
            files = {target.name: source.loaded.data}
        elif to == "tflite":
            from fedtiny_export.infer.tflite_out import to_tflite

            files = {target.name: to_tflite(source.network(int8=int8))}
        else:
            from fedtiny_export.infer.onnx_out import to_onnx

            own = b"" if int8 else source.onnx()
            files = {target.name: own or to_onnx(source.network(int8=int8)).SerializeToString()}
    written = _write(folder, files, force=force)
    if as_json:
        print_json({"run_id": source.name, "to": to, "int8": int8, "files": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(f"{path}  {path.stat().st_size:,} bytes")


def _write(folder: Path, files: dict[str, bytes], *, force: bool) -> list[Path]:
    written = [folder / name for name in files]
    there = [str(path) for path in written if path.exists()]
    if there and not force:
        raise ConfigError(f"{', '.join(there)} exists already. Choose another --out, or write over it with --force.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in zip(written, files.values(), strict=True):
            path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}. Choose another --out.") from None
    return written


@command
def verify(
    model: Model,
    samples: Samples = None,
    count: Annotated[int, typer.Option(min=1, help="Samples at most.")] = 500,
    board: Annotated[
        str | None,
        typer.Option(
            metavar="BOARD | none",
            help="The board whose emulator runs the C engine.",
            show_default="qemu-mps2-an386, where its tools are there",
        ),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8/--float", help="Of a float model: its int8 form too.")] = True,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run the same samples through PyTorch, ONNX Runtime, LiteRT and the C engine, here and in QEMU, and compare them.

    Exit code 1 where one of them does not compute the model. [bold]fedtiny verify RUN[/] ·
    [bold]fedtiny verify model.tflite --samples test.npz[/]
    """
    from fedtiny.boards import load_board
    from fedtiny.modelsource import open_source
    from fedtiny.verify import verify as compare

    source = open_source(model, samples=samples, data_dir=data_dir)
    inputs, labels = source.test(count)
    emulated = None if board == "none" else load_board(board or EMULATED, None)
    if emulated is not None and emulated.emulator is None:
        raise ConfigError(f"{board} has no emulator. fedtiny boards says which have; or leave it out: --board none.")
    found = compare(
        source.loaded,
        inputs,
        labels=labels,
        calibration=source.calibration() if int8 else None,
        board=emulated,
        needed=board is not None,
    )
    if as_json:
        print_json(found.as_json())
    else:
        from fedtiny.commands.tables import print_verification

        print_verification(found.as_json())
    if not found.good:
        raise typer.Exit(DIFFERS)


@command
def plan(
    model: Model,
    board: Annotated[str, typer.Option(metavar="BOARD", help="A board's name (fedtiny boards), or its file.")],
    work: Annotated[
        list[Purpose] | None,
        typer.Option("--for", help="What it is to do there; may be repeated.", show_default="all that it can"),
    ] = None,
    samples: Samples = None,
    data_dir: DataDir = None,
    boards: Annotated[Path | None, typer.Option(help="Folder of board files of your own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate flash, RAM by bank, time and energy class of a model on a board, before anything is built or flashed.

    What does not fit is refused with what would make it fit. [bold]fedtiny plan RUN --board nucleo_f446re[/]
    """
    from fedtiny.boards import load_board
    from fedtiny.modelplan import plan_model
    from fedtiny.modelsource import open_source

    its = load_board(board, boards)
    source = open_source(model, samples=samples, data_dir=data_dir)
    wanted = [purpose.value for purpose in work or []]
    if not wanted:
        whole = source.loaded.network.int8
        wanted = ["infer-int8"] if whole else ["infer"]
        if not whole and (samples is not None or source.run is not None):
            wanted.append("infer-int8")
        if source.loaded.training is not None:
            wanted.append("train")
    rows = plan_model(source, its, wanted)
    if as_json:
        print_json({"model": source.name, "board": its.name, "works": [row.as_json() for row in rows]})
    else:
        from fedtiny.commands.tables import print_plans

        print_plans([row.as_json() for row in rows])
    problems = [row.problem for row in rows if row.problem]
    for problem in problems:
        say(f"fedtiny: {problem}")
    if problems:
        raise typer.Exit(WRONG)
