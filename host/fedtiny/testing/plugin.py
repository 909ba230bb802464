"""The pytest plugin: fixtures `node`, `fleet` and `reference`, options --fleet, --node and --need-boards.

Every run of pytest imports it: what costs time is imported when a test asks for a node.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from fedtiny.testing.lab import Lab
    from fedtiny.testing.nodes import Node, Nodes

HARDWARE = "hardware"
NO_BOARD = "no board"
RAN_ON = "board"
"""The property of a test's report (and of JUnit's XML) that says which node it ran on: its name and kind."""

_LAB = pytest.StashKey["Lab"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fedtiny", "nodes of fedtiny")
    group.addoption("--fleet", metavar="FILE", help="Fleet file whose nodes are tested; default: in this process.")
    group.addoption("--node", action="append", default=[], metavar="NAME", help="Test this node of it; repeatable.")
    group.addoption("--need-boards", action="store_true", help="A board that is not plugged in fails its tests.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{HARDWARE}: only on real boards; skipped where there is none.")
    if config.getoption("--fleet") or config.getoption("--node"):
        _lab(config)  # a file that cannot be used stops the session before it starts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of one node runs on each node of the fleet file."""
    if "_fedtiny_name" not in metafunc.fixturenames:
        return
    lab = _lab(metafunc.config)
    names: list[str | None] = list(lab.tested)
    if metafunc.definition.get_closest_marker(HARDWARE):
        names = [name for name in lab.tested if lab.is_hardware(name)] or [None]
    metafunc.parametrize("_fedtiny_name", names, ids=[name or NO_BOARD for name in names], scope="session")


@pytest.fixture(scope="session")
def _fedtiny_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = _lab(request.config)
    yield lab
    lab.close()


@pytest.fixture
def node(request: pytest.FixtureRequest, _fedtiny_name: str | None, _fedtiny_lab: Lab) -> Node:
    """One node that answers (fedtiny.testing.nodes.Node); the test runs once for each node of the fleet file."""
    with _or_skipped(request):
        if _fedtiny_name is None:
            _no_board(request, "the fleet has no real board, only nodes on this computer")
        found = _fedtiny_lab.node(_fedtiny_name)
    _ran_on(request, _fedtiny_lab, found.name)
    return found


@pytest.fixture
def fleet(request: pytest.FixtureRequest, _fedtiny_lab: Lab) -> Nodes:
    """All nodes (fedtiny.testing.nodes.Nodes), each of which answers."""
    lab = _fedtiny_lab
    with _or_skipped(request):
        unreal = [name for name in lab.names if not lab.is_hardware(name)]
        if unreal and request.node.get_closest_marker(HARDWARE):
            _no_board(request, f"{', '.join(unreal)} run on this computer")
        found = lab.nodes()
    _ran_on(request, lab, *lab.names)
    return found


@pytest.fixture
def reference() -> Iterator[Node]:
    """A node in this process, to compare with: the same tasks give the same bits."""
    from fedtiny.testing.nodes import native_node

    found = native_node()
    yield found
    found.fleet.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says which kinds of nodes tests ran on, and how many ran on none."""
    reports = [
        report for found in terminalreporter.stats.values() for report in found if isinstance(report, pytest.TestReport)
    ]
    ran = [value for report in reports for key, value in report.user_properties if key == RAN_ON]
    skipped = sum(_is_no_board(report) for report in reports)
    if ran or skipped:
        from fedtiny.testing.lab import counted

        boards = [(name, kind) for name, _, kind in (str(value).rpartition(" ") for value in ran)]
        terminalreporter.write_line(counted(boards, skipped))


def _is_no_board(report: Any) -> bool:
    return report.outcome == "skipped" and f"Skipped: {NO_BOARD}" in str(report.longrepr)


def _lab(config: pytest.Config) -> Lab:
    """Raises pytest.UsageError for a fleet file that cannot be used."""
    if _LAB not in config.stash:
        from fedtiny.testing.lab import Lab
        from fedtiny_export.errors import FedtinyError

        try:
            config.stash[_LAB] = Lab(config.getoption("--fleet"), config.getoption("--node"))
        except FedtinyError as problem:
            raise pytest.UsageError(str(problem)) from None
    return config.stash[_LAB]


@contextmanager
def _or_skipped(request: pytest.FixtureRequest) -> Iterator[None]:
    """What keeps a node from being had: a board that is not there, or a fault that is told without a traceback."""
    from fedtiny.testing.lab import NoBoard
    from fedtiny_export.errors import FedtinyError

    missing = True
    try:
        yield
        return
    except NoBoard as problem:
        why = str(problem)
    except FedtinyError as problem:
        missing, why = False, str(problem)
    if missing:
        _no_board(request, why)
    pytest.fail(why, pytrace=False)


def _no_board(request: pytest.FixtureRequest, why: str) -> NoReturn:
    if request.config.getoption("--need-boards"):
        pytest.fail(f"{NO_BOARD}: {why}", pytrace=False)
    pytest.skip(f"{NO_BOARD}: {why}")


def _ran_on(request: pytest.FixtureRequest, lab: Lab, *names: str) -> None:
    request.node.user_properties += [(RAN_ON, f"{name} {lab.kind(name)}") for name in names]
