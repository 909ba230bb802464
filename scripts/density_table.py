"""The README's table of densities: runs a preset at each density and seed, keeps each run's folder, writes the figures.

    .venv/bin/python scripts/density_table.py

A run whose folder is finished is not run again, so a stopped table goes on where it was. The figures go to
docs/density.json; the README's table is that file as Markdown (tests/system/test_readme.py compares them).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

FIGURES = Path("docs/density.json")
DENSE = "dense FedAvg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fashion-mini")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.2, 0.1, 0.05, 0.02])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-dense", action="store_true", help="leave out dense federated averaging")
    parser.add_argument("--simulated", type=float, nargs="*", default=[0.05], help="densities to repeat in torch")
    parser.add_argument("--runs", type=Path, default=Path("runs/density"), help="where the runs are kept")
    parser.add_argument("--figures", type=Path, default=FIGURES)
    args = parser.parse_args()
    plan: list[tuple[str, str, list[str]]] = []
    if not args.no_dense:
        plan.append((DENSE, "native", ["-s", "pruning.method=fedavg"]))
    for fleet, densities in (("native", args.densities), ("simulated", args.simulated)):
        plan += [(f"{density:g}", fleet, ["--density", str(density)]) for density in densities]
    rows = []
    for name, fleet, options in plan:
        results = [run(args.preset, name, fleet, options, seed, args.runs) for seed in args.seeds]
        rows.append(row(name, fleet, results))
        print(markdown([rows[-1]]).splitlines()[-1], flush=True)
    args.figures.parent.mkdir(exist_ok=True)
    table = {"preset": args.preset, "seeds": args.seeds, "rows": rows}
    args.figures.write_text(json.dumps(table, indent=1) + "\n")
    print(f"\n{markdown(rows)}\nwritten: {args.figures}")


def run(preset: str, name: str, fleet: str, options: list[str], seed: int, runs: Path) -> dict[str, Any]:
    """result.json of one run, from its folder where it has finished before."""
    folder = runs / f"{preset}-{name.replace(' ', '-')}-{fleet}-s{seed}"
    if not (folder / "result.json").exists():
        command = [sys.executable, "-m", "fedtiny", "run", preset, "--seed", str(seed), "--fleet", fleet, "--json"]
        subprocess.run([*command, "--out", str(folder), *options], check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def row(name: str, fleet: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table says of one density: every seed's accuracy, and the first seed's costs."""
    first = results[0]
    return {
        "density": name,
        "fleet": fleet,
        "density_actual": [r["density_actual"] for r in results],
        "accuracy": [r["accuracy"] for r in results],
        "bytes": first["bytes"]["down"] + first["bytes"]["up"],
        "dense_fedavg_bytes": first["bytes"]["dense_fedavg"],
        "flops_ratio": first["flops"]["ratio_to_dense"],
        "plan_bytes": first["memory"]["plan_bytes"],
        "model_bytes": first["model_bytes"],
        "wall_s": [r["wall_s"] for r in results],
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of the README."""
    lines = [
        "| density | fleet | accuracy by seed | mean | bytes moved | training FLOPs | node RAM | model | wall |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        seeds = ", ".join(f"{100 * accuracy:.1f}" for accuracy in r["accuracy"])
        share = r["bytes"] / r["dense_fedavg_bytes"]
        lines.append(
            f"| {r['density']} | {r['fleet']} | {seeds} | **{100 * statistics.mean(r['accuracy']):.1f} %** "
            f"| {r['bytes'] / 1e6:.1f} MB ({share:.1%}) | {r['flops_ratio']:.1%} | {r['plan_bytes'] / 1e6:.2f} MB "
            f"| {r['model_bytes'] / 1e3:.0f} kB | {statistics.mean(r['wall_s']):.0f} s |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
