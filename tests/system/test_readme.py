"""The README's figures are those of the file that its command writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from fedtiny.bench.table import between

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_kernels_is_the_file_that_its_script_wrote() -> None:
    kernels = script("kernels_table")
    rows = kernels.rows_of((ROOT / kernels.FIGURES).read_text())
    assert kernels.markdown(rows) in (ROOT / "README.md").read_text()


def test_the_table_of_exported_networks_is_the_file_that_its_script_wrote() -> None:
    export = script("export_table")
    rows = export.rows_of((ROOT / export.FIGURES).read_text())
    readme = (ROOT / "README.md").read_text()
    assert between(readme, export.MARK, export.markdown(rows)) == readme


def test_the_tables_of_the_wire_are_the_file_that_its_script_wrote() -> None:
    wire = script("wire_table")
    figures = json.loads((ROOT / wire.FIGURES).read_text())
    readme = (ROOT / "README.md").read_text()
    assert between(readme, wire.ROWS, wire.rows_table(figures["rows"])) == readme
    assert between(readme, wire.OUTCOMES, wire.outcomes_table(figures["outcomes"])) == readme


def test_the_table_of_densities_is_the_file_that_its_script_wrote() -> None:
    densities = script("density_table")
    figures = json.loads((ROOT / densities.FIGURES).read_text())
    table = densities.markdown(figures["rows"])
    assert table in (ROOT / "README.md").read_text()
    assert [row["density"] for row in figures["rows"]][:5] == [densities.DENSE, "0.2", "0.1", "0.05", "0.02"]
    assert all(len(row["accuracy"]) >= 3 for row in figures["rows"])


def test_the_table_of_boards_is_the_file_that_its_script_wrote_and_has_every_board() -> None:
    from fedtiny.boards import board_names

    boards = script("boards_table")
    rows = json.loads((ROOT / boards.FIGURES).read_text())["rows"]
    assert boards.BEGIN + boards.markdown(rows) + boards.END in (ROOT / "README.md").read_text()
    assert [row["board"] for row in rows] == list(board_names())
    built = [row for row in rows if row["built_by"] == "fedtiny"]
    assert all(row["node_flash_bytes"] and row["node_ram_bytes"] and row["step_instructions"] for row in built)


def test_the_comparison_of_methods_is_that_of_the_committed_studies() -> None:
    methods = script("methods_table")
    readme = (ROOT / "README.md").read_text()
    lines = methods.table(ROOT / "docs" / "studies")
    assert between(readme, methods.MARK, lines) == readme
    assert lines.count("\n") == 2 + 18  # every method of the study


def test_every_link_of_the_documents_leads_somewhere() -> None:
    import re

    for document in [ROOT / "README.md", ROOT / "DESIGN.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"
