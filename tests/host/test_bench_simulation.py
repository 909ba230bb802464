"""The rows of `bench simulation`: that they are there, and that all kinds do the same work."""

from __future__ import annotations

from fedtiny.bench.simulation import GOALS, KINDS, SIMULATION, SimulationBench, names


def test_the_promised_row_comes_first_and_every_goal_has_its_row() -> None:
    assert names()[0] == "simulation.speedup_vs_loop"
    assert GOALS.keys() <= set(names())
    assert SIMULATION.chosen("native") == [name for name in names() if "native" in name]


def test_every_kind_of_node_does_a_round() -> None:
    bench = SimulationBench(lambda text: None, nodes=2, samples=8, turns=1)
    found = bench.seconds(KINDS)
    assert found.keys() == set(KINDS)
    assert all(seconds > 0 for seconds in found.values())
    assert bench.steps == 2
