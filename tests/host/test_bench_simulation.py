"""The rows of `bench simulation`: that they are there, and that all kinds do the same work."""

from __future__ import annotations

import pytest
import torch

from fedtiny.bench import fedavg, flower, simulation
from fedtiny.bench.simulation import FLOWER, GOALS, KINDS, SIMULATION, SimulationBench, names
from fedtiny_export.errors import FleetError


def small(turns: int = 1) -> SimulationBench:
    return SimulationBench(lambda text: None, nodes=2, samples=8, turns=turns)


def rows(monkeypatch, only: str) -> dict[str, simulation.Row]:
    monkeypatch.setattr(simulation, "SimulationBench", lambda say: small())
    return {row.name: row for row in SIMULATION.measure(only)}


def test_the_promised_rows_come_first_and_every_goal_has_its_row() -> None:
    assert names()[:2] == ["simulation.speedup_vs_flower", "simulation.speedup_vs_loop"]
    assert GOALS.keys() <= set(names())
    assert SIMULATION.chosen("native") == [name for name in names() if "native" in name]


def test_every_kind_of_node_does_a_round() -> None:
    bench = small()
    found = bench.seconds(KINDS)
    assert found.keys() == set(KINDS)
    assert all(isinstance(seconds, float) and seconds > 0 for seconds in found.values())
    assert bench.steps == 2


def test_a_round_of_the_loop_averages_what_its_nodes_have_learnt() -> None:
    """Two nodes with the same samples: what is averaged is what each of them has."""
    x, y = fedavg.tensors(0, 8)  # one micro-batch: its order changes nothing
    start = {name: value.clone() for name, value in fedavg.net().state_dict().items()}
    alone = fedavg.net()
    alone.load_state_dict(start)
    fedavg.train_locally(alone, x, y)
    averaged = fedavg.average([(alone.state_dict(), 8), (start, 24)])
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(averaged[name], value * 0.25 + start[name] * 0.75)
    assert any(not torch.equal(averaged[name], value) for name, value in start.items())


def test_the_ratio_to_the_loop_is_that_to_our_quickest_dense_nodes_and_says_which(monkeypatch) -> None:
    times = {"loop": 8.0, "loop.1thread": 6.0, "simulated": 4.0, "stacked": 2.0, "native": 3.0}
    monkeypatch.setattr(SimulationBench, "seconds", lambda self, kinds: times)
    row = rows(monkeypatch, "speedup_vs_loop")["simulation.speedup_vs_loop"]
    assert (row.value, row.config["fleet"], row.config["beside"]) == (3.0, "stacked", "loop.1thread")


def test_without_flower_its_rows_say_what_to_install_and_the_others_are_measured(monkeypatch) -> None:
    monkeypatch.setattr(flower, "find_spec", lambda name: None)
    found = rows(monkeypatch, "flower|native$")
    for name in ("simulation.speedup_vs_flower", "simulation.steps_per_s.flower"):
        assert found[name].value is None
        assert "pip install 'fedtiny[flower]'" in found[name].missing
    assert found["simulation.steps_per_s.native"].value > 0


@pytest.mark.skipif(flower.missing() is not None, reason="Flower is an extra: pip install 'fedtiny[flower]'")
def test_flower_does_rounds_of_the_same_fedavg_and_says_why_it_ends() -> None:
    found = small().seconds((FLOWER,))[FLOWER]
    assert isinstance(found, float)
    assert found > 0
    with pytest.raises(FleetError, match="Flower's simulation ended"):
        flower.Flower(nodes=2, samples=0, rounds=1).round()  # nodes without samples cannot train
