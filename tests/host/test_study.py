"""Studies: which cells a file makes, that no finished cell is repeated, and that the tables say what came of them."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedtiny.pruning import BUILT_IN
from fedtiny.study import read_study, run_study, write_study_report
from fedtiny.study.runner import open_cells
from fedtiny.study.stats import mean_of, paired, t_distribution, t_quantile
from fedtiny.study.store import Store
from fedtiny.study.tables import grouped, paired_table
from fedtiny_export.errors import ConfigError

SMALL = """
base = "fashion-mini"
densities = [0.2]
[settings]
fleet = {kind = "simulated", nodes = 2}
data.per_node = 16
model = {name = "lenet-mini", width = 2}
train = {rounds = 1, local_epochs = 1}
pretrain.epochs = 1
"""

OWN = '''
"""A user's own method."""
from dataclasses import dataclass

import numpy as np

from fedtiny.pruning import Method, Start, allocate


@dataclass(frozen=True, kw_only=True)
class EveryOther(Method):
    """Keeps the first weights of every layer, whatever they are."""

    density: float
    name: str = "every-other"

    def start(self, model, *, seed, public=None):
        allocation = allocate(model.graph, self.density)
        masks = {}
        for layer in allocation.masked:
            param = model.graph.params[model.graph.layers[layer]]
            flat = np.arange(param.size) < max(1, int(allocation.densities[layer] * param.size))
            masks[layer] = flat.reshape(param.shape)
        return Start(masks=masks)
'''


def study_of(folder: Path, text: str) -> Any:
    (folder / "study.toml").write_text(text)
    return read_study(folder / "study.toml")


def test_every_combination_is_a_cell_and_what_does_not_matter_makes_no_more(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        'methods = ["fedavg", "snip"]\ndensities = [0.1, 0.05]\nalphas = [0.1, 0.5]\nseeds = [0, 1, 2]\n'
        'data = ["fashion-mini", {base = "spar-watch", label = "spar", densities = [0.2, 0.1, 0.05]}]\n',
    )
    counts: dict[tuple[str, str], int] = {}
    for cell in study.cells:
        counts[cell.data, cell.method] = counts.get((cell.data, cell.method), 0) + 1
    assert counts == {
        ("fashion-mini", "fedavg"): 6,  # two alphas, three seeds; it knows no density
        ("fashion-mini", "snip"): 12,
        ("spar", "fedavg"): 3,  # dealt by person: no alpha
        ("spar", "snip"): 9,  # three densities of its own
    }
    assert len({cell.key for cell in study.cells}) == 30
    assert {cell.config.train.rounds for cell in study.cells if cell.data == "spar"} == {20}


def test_the_committed_study_can_be_had_on_every_cell() -> None:
    """Its methods exist, and its densities leave every layer of its models a weight."""
    from fedtiny.models import build
    from fedtiny.pruning import allocate
    from fedtiny_export.torch_in import from_torch

    study = read_study(Path(__file__).resolve().parents[2] / "docs" / "studies" / "methods.toml")
    shapes = {"fashion-mini": ((1, 28, 28), 10), "spar-watch": ((6, 1, 128), 7)}
    graphs = {
        name: from_torch(build(model, input_shape=shapes[name][0], classes=shapes[name][1]), shapes[name][0]).graph
        for name, model in (("fashion-mini", "resnet-mini"), ("spar-watch", "watch-net"))
    }
    assert {cell.config.pruning.method for cell in study.cells} == set(BUILT_IN)
    for cell in study.cells:
        allocate(graphs[cell.config.data.name], cell.density, cell.config.pruning.rule)


def test_axes_vary_any_setting_and_a_dense_method_joins_every_place(tmp_path: Path) -> None:
    study = study_of(tmp_path, 'methods = ["fedavg", "fedtiny"]\n[axes]\n"pruning.pool_size" = [2, 5]\n')
    assert [(cell.method, dict(cell.axes)) for cell in study.cells] == [
        ("fedavg", {}),
        ("fedtiny", {"pruning.pool_size": 2}),
        ("fedtiny", {"pruning.pool_size": 5}),
    ]
    rows = [
        {"data": c.data, "alpha": c.alpha, "axes": dict(c.axes), "method": c.method, "density": c.density, "seed": 0}
        for c in study.cells
    ]
    groups = grouped(rows)
    assert [group.axes for group in groups] == ["pool_size 2", "pool_size 5"]
    assert [[row["method"] for row in group.rows] for group in groups] == [["fedavg", "fedtiny"]] * 2


def test_a_narrower_nets_flops_are_told_as_a_share_of_the_full_ones() -> None:
    def row(method: str, density: float, flops: float, dense: float) -> dict[str, Any]:
        place = {"data": "d", "alpha": None, "axes": {}, "seed": 0, "method": method, "density": density}
        return place | {"flops_total": flops, "flops_dense_total": dense}

    (group,) = grouped([row("fedavg", 1.0, 100.0, 100.0), row("small-dense", 0.1, 20.0, 20.0)])
    assert group.cost("small-dense", 0.1, "flops_share") == pytest.approx(0.2)
    assert group.cost("fedavg", 1.0, "flops_share") == 1.0


def test_a_cell_is_known_by_what_decides_its_result(tmp_path: Path) -> None:
    def keys(more: str) -> set[str]:
        return {cell.key for cell in study_of(tmp_path, f'methods = ["snip"]\n{more}').cells}

    plain = keys("")
    assert keys("settings.fleet.workers = 2") == plain
    assert keys("title = 'another'") == plain
    assert keys("settings.train.lr = 0.01") != plain
    (tmp_path / "own.py").write_text(OWN)
    own = f'methods = ["{tmp_path}/own.py:EveryOther"]'
    before = {cell.key for cell in study_of(tmp_path, own).cells}
    (tmp_path / "own.py").write_text(OWN + "# mended\n")
    assert {cell.key for cell in study_of(tmp_path, own).cells} != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('methds = ["snip"]', "Did you mean methods"),
        ("", "names no methods"),
        ('methods = ["snap"]', "Did you mean snip"),
        ('methods = ["snip", "snip"]', "snip twice"),
        ('methods = ["snip"]\nreference = "fedtiny"', "is no method of it"),
        ('methods = ["snip"]\nseeds = 3', r"Write seeds = \[3\]"),
        ('methods = ["snip"]\n[axes]\ntrain.lr = 0.1', "give a list"),
        ('methods = ["snip"]\n[settings]\ntrain.lrr = 0.1', "Did you mean train.lr"),
        ('methods = [{method = "grasp", pruning.options = {temp = 1.0}}]', "no option 'temp'"),
    ],
)
def test_a_mistake_in_a_study_is_answered_with_what_is_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_of(tmp_path, text)


def test_intervals_and_paired_tests_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.81, 0.79, 0.84, 0.80, 0.83], [0.78, 0.80, 0.80, 0.77, 0.79]
    found = paired(a, b)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    low, high = stats.t.interval(0.95, 4, loc=sum(a) / 5, scale=stats.sem(a))
    assert mean_of(a).half == pytest.approx((high - low) / 2, rel=1e-9)
    for degrees in (1, 2, 7, 40):
        assert t_quantile(0.975, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)
        for t in (-30.0, -1.0, 0.0, 0.3, 4.0):
            assert t_distribution(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)


def test_one_value_has_no_interval_and_equal_pairs_no_difference() -> None:
    assert mean_of([0.5]).half is None
    assert paired([0.5], [0.4]).p is None
    assert paired([0.5, 0.6], [0.5, 0.6]).p == 1.0
    assert paired([0.5, 0.6], [0.4, 0.5]).difference == pytest.approx(0.1)


def test_a_dense_method_is_paired_with_the_others_at_every_density() -> None:
    accuracies = {("fedavg", 1.0): (0.8, 0.9), ("a", 0.1): (0.7, 0.85), ("a", 0.02): (0.6, 0.65)}
    rows = [
        {"data": "d", "alpha": 0.5, "axes": {}, "method": method, "density": density, "seed": seed, "accuracy": value}
        for (method, density), values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    (group,) = grouped(rows)
    head, dense = paired_table(group, ["fedavg", "a"], "a")
    assert head == ["minus a", "0.1", "0.02"]
    assert [cell.partition(" ")[0] for cell in dense[1:]] == ["+7.5", "+22.5"]
    assert [cell.partition(" ")[0] for cell in paired_table(group, ["fedavg", "a"], "fedavg")[1]] == [
        "a", "", "-7.5", "-22.5",
    ]  # fmt: skip


def test_a_method_of_the_users_own_is_one_file_and_stands_in_the_table(tmp_path: Path) -> None:
    assert len(OWN.splitlines()) < 60
    (tmp_path / "own.py").write_text(OWN)
    study = study_of(
        tmp_path,
        f'title = "With my own"\nmethods = ["{tmp_path}/own.py:EveryOther", "magnitude", "fedavg"]\nseeds = [0, 1]\n'
        'reference = "magnitude"\n' + SMALL,
    )
    heard = []
    done, failed = run_study(study, tmp_path / "out", workers=1, heard=heard.append)
    assert (done, failed, len(heard)) == (6, 0, 6)
    files = {path.name: path for path in write_study_report(study, tmp_path / "out")}
    text = files["report.md"].read_text("utf-8")
    assert re.search(r"^\| EveryOther \| +\| [0-9.]+ ± [0-9.]+ \(2\) \|$", text, re.MULTILINE)
    assert re.search(r"^\| fedavg \| [0-9.]+ ± [0-9.]+ \(2\) \| +\|$", text, re.MULTILINE)
    assert re.search(r"^\| EveryOther \| [+-][0-9.]+ ± [0-9.]+, p [0-9.e-]+ \(2\) \|$", text, re.MULTILINE)
    for path in files.values():
        if path.suffix == ".svg":
            assert "EveryOther" in path.read_text("utf-8")
            ElementTree.parse(path)
    assert {"bytes", "flops_total", "plan_bytes"} <= {name.rpartition("-")[2].removesuffix(".svg") for name in files}
    cells = list(csv.DictReader(files["cells.csv"].open()))
    assert {row["method"] for row in cells} == {"EveryOther", "magnitude", "fedavg"}
    assert all(int(row["down"]) > 0 and float(row["flops_total"]) > 0 and int(row["plan_bytes"]) > 0 for row in cells)
    summary = list(csv.DictReader(files["summary.csv"].open()))
    assert [row["seeds"] for row in summary] == ["2", "2", "2"]
    tex = files["tables.tex"].read_text("utf-8")
    assert tex.count(r"\begin{tabular}") == 2
    assert r"$\pm$" in tex


def test_a_cell_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    study = study_of(tmp_path, 'methods = ["magnitude"]\n' + SMALL.replace("[0.2]", "[0.0001]"))
    heard = []
    assert run_study(study, tmp_path / "out", workers=1, heard=heard.append) == (0, 1)
    assert "density 0.0001" in heard[0].outcome["failed"]
    assert len(open_cells(study, tmp_path / "out")) == 1
    with pytest.raises(ConfigError, match="no finished cell"):
        write_study_report(study, tmp_path / "out")


def test_a_bug_in_a_users_method_costs_its_own_cells_alone(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("        masks = {}\n", "        masks = {}[0]\n"))
    study = study_of(tmp_path, f'methods = ["{tmp_path}/own.py:EveryOther", "magnitude"]\n' + SMALL)
    heard = []
    assert run_study(study, tmp_path / "out", workers=1, heard=heard.append) == (1, 1)
    assert "KeyError: 0" in {each.outcome.get("failed") for each in heard}


def test_a_killed_study_goes_on_without_repeating_a_finished_cell(tmp_path: Path) -> None:
    study = study_of(tmp_path, 'methods = ["magnitude"]\nseeds = [0, 1, 2, 3]\n' + SMALL)
    out = tmp_path / "out"
    arguments = [sys.executable, "-m", "fedtiny", "study", "study.toml", "--out", "out", "--workers", "1"]
    running = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        for _ in range(1200):
            if len(list(out.glob("cells/*.json"))) >= 1 or running.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.communicate()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert 1 <= len(kept) < 4
    damaged = Store(out).path / "cells" / f"{next(c for c in study.cells if not _file(out, c).exists()).key}.json"
    damaged.write_text('{"key": "half of a fi')
    done = subprocess.run([*arguments, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"folder": "out", "cells": 4, "finished": 4, "failed": 0}
    assert len(done.stderr.splitlines()) == 4 - len(kept)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    listed = subprocess.run([*arguments[:-2], "--dry"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout == ""


def _file(out: Path, cell: Any) -> Path:
    return out / "cells" / f"{cell.key}.json"
