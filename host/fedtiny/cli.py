"""The `fedtiny` command. Everything heavy is imported where it is used, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtiny.commands import AsJson, boards, command, models, print_json, say, study
from fedtiny_export.errors import ConfigError, FedtinyError

if TYPE_CHECKING:
    from fedtiny.bench.suite import Suite
    from fedtiny.experiment import Experiment
    from fedtiny.progress import Display
    from fedtiny.runfolder import RunFolder

app = typer.Typer(
    name="fedtiny",
    help="A fleet of microcontrollers trains one tiny, sparse model together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/fashion-mini-s0-1.")]


def main() -> None:
    """The console script."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from fedtiny import __version__

        typer.echo(f"fedtiny {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command("run")
@command
def run_(
    source: Annotated[
        str | None, typer.Argument(metavar="PRESET | FILE.toml", help="What to run.", show_default="fashion-mini")
    ] = None,
    fleet: Annotated[
        str | None,
        typer.Option(metavar="KIND | FLEET.toml", help="native (the C core), simulated (torch), or a fleet file."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes that train.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Federated rounds.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of all weights that live, 0 < density <= 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything drawn at random.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder, a new one.", show_default="runs/PRESET-sSEED-N")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a stopped run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on a fleet of nodes and write the run's folder: report, result.json, model in ONNX and as a blob.

    [bold]fedtiny run[/] · [bold]fedtiny run spar-watch --rounds 40[/] · [bold]fedtiny run mine.toml -s train.lr=0.05[/]
    """
    flags = {
        **_fleet_settings(fleet, nodes),
        "train.rounds": rounds,
        "pruning.density": density,
        "seed": seed,
        "data.data_dir": None if data_dir is None else str(data_dir),
    }
    overrides = {key: value for key, value in flags.items() if value is not None}
    if resume is not None:
        if source is not None or out is not None:
            raise ConfigError("--resume goes on with a run's own settings and folder: leave out the preset and --out.")
        _go_on(resume, overrides, setting or [], as_json=as_json)
    else:
        _begin(source or "fashion-mini", overrides, setting or [], out, as_json=as_json)


@app.command()
@command
def report(run: Run, as_json: AsJson = False) -> None:
    """Write a run's report.html anew and print what the run came to.

    [bold]fedtiny report runs/fashion-mini-s0-1[/]
    """
    from fedtiny.report import write_report
    from fedtiny.runfolder import RunFolder

    folder = RunFolder.open(run)
    result = folder.result()
    path = write_report(folder.path)
    if as_json:
        print_json(result | {"report": str(path)})
        return
    from fedtiny.progress import print_summary

    print_summary(result, folder.path)


@app.command("eval")
@command
def eval_(
    run: Run,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a run's model on the test samples, on a native node and in ONNX Runtime, and compare them.

    [bold]fedtiny eval runs/fashion-mini-s0-1[/]
    """
    from fedtiny.config import load_config
    from fedtiny.result import evaluate_saved
    from fedtiny.runfolder import BLOB, CONFIG, ONNX, RunFolder

    folder = RunFolder.open(run)
    config = load_config(folder.file(CONFIG), {} if data_dir is None else {"data.data_dir": str(data_dir)})
    outcome = evaluate_saved(folder.read(BLOB), folder.read(ONNX), config)
    if as_json:
        print_json({"run_id": folder.run_id, **outcome})
        return
    from fedtiny.progress import print_evaluation

    print_evaluation(outcome)


@app.command("presets")
@command
def presets_(as_json: AsJson = False) -> None:
    """List the presets that ship, with the command that runs each."""
    from fedtiny.config import presets

    found = presets()
    if as_json:
        print_json({"presets": [{"name": n, "title": t, "command": f"fedtiny run {n}"} for n, t in found.items()]})
        return
    from fedtiny.progress import print_presets

    print_presets(found)


fleet_app = typer.Typer(help="Devices: give them keys, look at them, take keys away.", no_args_is_help=True)
app.add_typer(fleet_app, name="fleet")
boards.add_to_fleet(fleet_app)

FleetFile = Annotated[Path, typer.Argument(metavar="FLEET.toml", help="The fleet file (docs/fleet.md).")]
Nodes = Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="Nodes of it; all, if none is named.")]


@fleet_app.command("enrol")
@command
def fleet_enrol(
    file: FleetFile,
    nodes: Nodes = None,
    offline: Annotated[
        Path | None, typer.Option(metavar="RECORD", help="Write one node's record for flashing; nothing is contacted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give devices a key, over the cable or at flash time.

    [bold]fedtiny fleet enrol lab.toml[/] · [bold]fedtiny fleet enrol lab.toml n1 --offline n1.record[/]
    """
    from fedtiny.fleet import manage
    from fedtiny.fleet.roster import read_roster

    roster = read_roster(file)
    done: list[str] = []
    if offline is not None:
        if not nodes or len(nodes) != 1:
            raise ConfigError("--offline writes the record of one node: name one.")
        manage.write_record(roster, nodes[0], offline)
        done = list(nodes)
    else:
        manage.enrol(roster, nodes or [], enrolled=lambda node, hello: done.append(node))
    if as_json:
        print_json({"enrolled": done, "keys": str(roster.keys.path)})
        return
    for node in done:
        typer.echo(f"{node} is enrolled")
    typer.echo(f"Keys: {roster.keys.path}" if done else "Every node that a cable reaches has a key.")


@fleet_app.command("list")
@command
def fleet_list(
    file: FleetFile,
    stored: Annotated[bool, typer.Option("--stored", help="Only what is on file; contact no node.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show each device's board, firmware, free RAM, link, profile and when it was last seen.

    [bold]fedtiny fleet list lab.toml[/]
    """
    from fedtiny.fleet.manage import listed
    from fedtiny.fleet.roster import read_roster

    rows = listed(read_roster(file), ask=not stored)
    if as_json:
        print_json({"nodes": rows})
        return
    from fedtiny.progress import print_devices

    print_devices(rows)


@fleet_app.command("revoke")
@command
def fleet_revoke(file: FleetFile, nodes: Annotated[list[str], typer.Argument()], as_json: AsJson = False) -> None:
    """Take devices' keys away; those that can be reached are told to erase theirs.

    [bold]fedtiny fleet revoke lab.toml n1[/]
    """
    from fedtiny.fleet.manage import revoke
    from fedtiny.fleet.roster import read_roster

    told = revoke(read_roster(file), nodes)
    if as_json:
        print_json({"revoked": [{"node": node, "erased": why is None, "problem": why} for node, why in told.items()]})
        return
    for node, why in told.items():
        typer.echo(f"{node} is revoked" + (" and has erased its key" if why is None else f"; it was not told: {why}"))


@app.command()
@command
def bridge(file: FleetFile, nodes: Nodes = None) -> None:
    """Put boards that are plugged in here on the fleet's broker, one topic tree each; until Ctrl-C.

    [bold]fedtiny bridge bench.toml[/]
    """
    from fedtiny.fleet.bridge import bridge as carry
    from fedtiny.fleet.roster import read_roster

    carry(read_roster(file), nodes or [], say)


bench_app = typer.Typer(help="Measure what is promised.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


@bench_app.command("kernels")
@command
def bench_kernels(
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Rows whose name matches this expression.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Instructions, modelled cycles, flash, RAM and host time of inference and training, beside what others take.

    [bold]fedtiny bench kernels[/] · [bold]fedtiny bench kernels --only ref.train[/]
    """
    from fedtiny.bench.rows import KERNELS

    _bench(KERNELS, only, as_json=as_json)


@bench_app.command("wire")
@command
def bench_wire(
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Rows whose name matches this expression.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Goodput of serial lines, bytes of updates and masks, a round of 1,000 nodes over MQTT, what a frame costs.

    [bold]fedtiny bench wire[/] · [bold]fedtiny bench wire --only serial.921600[/]
    """
    from fedtiny.bench.wire import WIRE

    _bench(WIRE, only, as_json=as_json)


@bench_app.command("export")
@command
def bench_export(
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Rows whose name matches this expression.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Instructions, RAM and flash of int8 inference of exported networks, dense and pruned, beside what others take.

    [bold]fedtiny bench export[/] · [bold]fedtiny bench export --only resnet8.s8.m4f[/]
    """
    from fedtiny.bench.export import EXPORT

    _bench(EXPORT, only, as_json=as_json)


models.add_to(app)


@bench_app.command("simulation")
@command
def bench_simulation(
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Rows whose name matches this expression.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Local steps a second of simulated and native nodes, beside a torch loop and Flower; on a GPU where there is one.

    [bold]fedtiny bench simulation[/] · [bold]fedtiny bench simulation --only speedup[/]
    """
    from fedtiny.bench.simulation import SIMULATION

    _bench(SIMULATION, only, as_json=as_json)


boards.add_to(app)
app.add_typer(study.app, name="study")


def _bench(suite: Suite, only: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"rows": [row.as_json() for row in suite.measure(only)]})
        return
    from fedtiny.bench.table import print_table, watched

    print_table(suite, watched(suite, only))


def _fleet_settings(fleet: str | None, nodes: int | None) -> dict[str, Any]:
    """A fleet file says how many nodes there are, if nobody else does."""
    if fleet is None or not fleet.endswith(".toml"):
        return {"fleet.kind": fleet, "fleet.nodes": nodes}
    from fedtiny.fleet import node_names

    return {
        "fleet.kind": "wire",
        "fleet.file": str(Path(fleet).absolute()),
        "fleet.nodes": len(node_names("wire", nodes, fleet)),
    }


def _begin(source: str, flags: dict[str, Any], settings: list[str], out: Path | None, *, as_json: bool) -> None:
    from fedtiny.config import load_config, parse_override, to_toml
    from fedtiny.experiment import Experiment
    from fedtiny.journal import SqliteJournal
    from fedtiny.progress import Display
    from fedtiny.runfolder import CONFIG, JOURNAL, RunFolder

    own = _settings_of_file(source, flags.get("fleet.file"))
    config = load_config(source, own | dict(map(parse_override, settings)) | flags)
    folder = RunFolder.create(out) if out is not None else RunFolder.fresh(f"{config.name}-s{config.seed}")
    began = False
    try:
        folder.write(CONFIG, to_toml(config))
        with SqliteJournal(folder.file(JOURNAL)) as journal, Display(config, live=_live(as_json)) as display:
            try:
                experiment = Experiment(config, journal=journal, watch=display.phase, listen=display.heard)
                _drive(experiment, folder, display, as_json=as_json)
            finally:
                began = bool(journal.rows)
    finally:
        if not began:
            folder.discard()


def _settings_of_file(source: str, file: str | None) -> dict[str, object]:
    """What a fleet file sets of a run on its nodes, shown: flags and -s win."""
    from fedtiny.config import load_config, value_of
    from fedtiny.fleet import file_settings

    found = file_settings(file) if file else {}
    if not found:
        return {}
    preset = load_config(source)
    try:
        config = load_config(source, found)
    except ConfigError as problem:
        raise ConfigError(f"{file}: [settings]: {problem}") from None
    changed = {key: value_of(config, key) for key in found if value_of(config, key) != value_of(preset, key)}
    say(f"{Path(str(file)).name} sets {', '.join(f'{key}={_word(value)}' for key, value in changed.items())}")
    return found


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _go_on(run: Path, flags: dict[str, Any], settings: list[str], *, as_json: bool) -> None:
    from fedtiny.config import load_config, parse_override
    from fedtiny.experiment import Experiment, resume
    from fedtiny.progress import Display
    from fedtiny.runfolder import CONFIG, RunFolder

    folder = RunFolder.open(run)
    config = load_config(folder.file(CONFIG), dict(map(parse_override, settings)) | flags)
    with resume(folder, config) as journal, Display(config, live=_live(as_json)) as display:
        experiment = Experiment(config, journal=journal, watch=display.phase, listen=display.heard)
        _drive(experiment, folder, display, as_json=as_json)


def _drive(experiment: Experiment, folder: RunFolder, display: Display, *, as_json: bool) -> None:
    """All rounds, then the folder's files; a stop leaves the run as it is after its last finished round."""
    from fedtiny.progress import print_summary
    from fedtiny.runfolder import METRICS

    with experiment:
        try:
            experiment.prepare()
            display.prepared(experiment.selection, experiment.rows)
            for record in experiment:
                display.round(record)
                folder.write_lines(METRICS, experiment.rows)
        except (KeyboardInterrupt, FedtinyError) as stop:
            display.close()
            if experiment.began:
                experiment.stop()
                experiment.save(folder)
                say(_stopped(folder, experiment, by_hand=isinstance(stop, KeyboardInterrupt)))
            raise
        display.phase("report")
        result = experiment.save(folder)
    display.close()
    if as_json:
        print_json(result)
    else:
        print_summary(result, folder.path)


def _stopped(folder: RunFolder, experiment: Experiment, *, by_hand: bool) -> str:
    done = len(experiment.rows)
    why = "Stopped" if by_hand else "The run cannot go on"
    return (
        f"{why} after {done} of {experiment.config.train.rounds} rounds; all of them are kept.\n"
        f"  what is there: fedtiny report {folder.path}\n"
        f"  go on:         fedtiny run --resume {folder.path}"
    )


def _live(as_json: bool) -> bool:
    return sys.stderr.isatty() and not as_json
