"""The rows of `bench kernels`: their names, which are stable, what each should reach, and how each is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedtiny import emulation
from fedtiny.bench import builds, cases, counting, cycles, kernels, suite
from fedtiny.bench.cases import Case
from fedtiny.bench.peers import PEERS, PUBLISHED
from fedtiny.bench.suite import Config, Goal, Say, Suite
from fedtiny_export.core import plan

GOALS = {
    "ref.train.m4f.d0.1.instructions": Goal(0.85e6),
    "ref.train.m4f.d0.1.cycles": Goal(1.5e6),
    "ref.train.m4f.d0.1.fast.instructions": Goal(0.55e6),
    "ref.train.m4f.d1.fast.instructions": Goal(1.6e6),
    "ref.train.d0.1.ram_bytes": Goal(48 * 1024),
    "resnet8.infer.m4f.d0.1.f32.fast.instructions": Goal(3.8e6),
    "resnet8.train.d0.1.ram_bytes": Goal(256 * 1024),
    "dscnn.train.d0.1.ram_bytes": Goal(128 * 1024),
    "node.flash_bytes": Goal(48 * 1024),
    "conv64x64.m4f.d0.1.fast.instructions_per_mac": Goal(1.5),
    "ref.train.host.d0.1.speedup_vs_torch": Goal(10, at_least=True),
}


BESIDE = ("resnet8.train.mb4.d0.1.ram_bytes", "control.train.m4f.d1.instructions", "control.train.m4f.d1.cycles")
"""Rows without a goal that stand in the first table: what the others are compared with."""


class Bench:
    """Measures what rows ask for, each program and each case once. Lives as long as its folder."""

    def __init__(self, folder: Path, say: Say = suite.silent) -> None:
        self._folder = folder
        self.say = say
        self._wanted: dict[tuple[str, builds.Build], list[Case]] = {}
        self._costs: dict[tuple[str, builds.Build, Case], counting.Cost] = {}

    def want(self, target: str, build: builds.Build, case: Case) -> None:
        """Announces a count: all that are wanted of one build are taken in one run of the emulator."""
        wanted = self._wanted.setdefault((target, build), [])
        if case not in wanted:
            wanted.append(case)

    def cost(self, target: str, build: builds.Build, case: Case) -> counting.Cost:
        if (target, build, case) not in self._costs:
            self.want(target, build, case)
            todo = [c for c in self._wanted[target, build] if (target, build, c) not in self._costs]
            self.say(f"{target}, {build.name}: {len(todo)} cases in the emulator")
            costs = counting.count_cases(target, build, todo, self._folder)
            self._costs |= {(target, build, c): cost for c, cost in costs.items()}
        return self._costs[target, build, case]

    def instructions(self, target: str, build: builds.Build, case: Case) -> int:
        return self.cost(target, build, case).instructions

    def static_bytes(self, target: str, build: builds.Build) -> int:
        return builds.static_bytes(target, build, self._folder)

    def stack(self, target: str, build: builds.Build) -> int:
        """The most stack that any measured case took."""
        return max(cost.stack for (t, b, _), cost in self._costs.items() if (t, b) == (target, build))

    def cycles(self, target: str, build: builds.Build, case: Case) -> int:
        self.say(f"{target}, {build.name}: every block of instructions of one step")
        elf = builds.program(target, build, "steps", self._folder)
        (self._folder / "cycles.case").write_bytes(cases.case_file(case))
        executed, taken = counting.blocks_of(target, elf, ["cycles.case"], self._folder)
        return self._modelled(target, elf, executed, taken)

    def control_data(self) -> bytes:
        import struct

        from fedtiny_export.values import pack_values

        model = cases.model("ref", "batch")
        values = pack_values(model.graph, model.arrays, {})
        return values.tobytes() + cases.sample("ref").tobytes() + struct.pack("<I", 1)

    def control_instructions(self, target: str) -> int:
        self.say(f"{target}: the plain dense control")
        return counting.count_control(target, self.control_data(), self._folder)

    def control_cycles(self, target: str) -> int:
        elf = builds.control(target, self._folder)
        (self._folder / "control.in").write_bytes(self.control_data())
        arguments = ["control.in", "control.out"]
        executed, taken = counting.blocks_of(target, elf, arguments, self._folder)
        return self._modelled(target, elf, executed, taken)

    def flash(self, target: str, build: builds.Build) -> int:
        self.say(f"{target}: flash of a node, {build.name}")
        return builds.flash_bytes(target, build, "node", self._folder)

    def _modelled(self, target: str, elf: Path, executed: Any, taken: Any) -> int:
        total, _ = cycles.cycles(cycles.disassemble(builds.board_of(target), elf), executed, taken)
        return total


Take = Callable[[Bench], tuple[float, Config]]


@dataclass(frozen=True)
class Entry:
    """A row before it is measured. `wants`: counts to announce, so that one run of the emulator serves many rows."""

    unit: str
    take: Take
    wants: tuple[tuple[str, builds.Build, Case], ...] = ()


def _case_config(case: Case, build: builds.Build | None = None, target: str | None = None) -> Config:
    config: Config = {
        "model": case.model, "density": case.density, "mode": case.mode, "micro_batch": case.micro_batch,
        "norm": cases.norm_layer(case), "dtype": "float32", **case.knobs,
    }  # fmt: skip
    if build:
        config |= {"build": build.name}
    if target:
        board = builds.board_of(target)
        sizes = emulation.size_flags(board, builds.OPTIMISE)
        flags = [*board.toolchain.machine, builds.OPTIMISE, *sizes, *(build.flags if build else ())]
        config |= {"target": target, "board": board.name, "flags": flags}
    return config


def _instructions(target: str, build: builds.Build, case: Case) -> Entry:
    def take(bench: Bench) -> tuple[float, Config]:
        return bench.instructions(target, build, case), _case_config(case, build, target)

    return Entry("instructions", take, ((target, build, case),))


def _cycles(target: str, build: builds.Build, case: Case) -> Entry:
    def take(bench: Bench) -> tuple[float, Config]:
        return bench.cycles(target, build, case), _case_config(case, build, target) | {"model_of": "cycles.py"}

    return Entry("cycles, modelled", take)


def _ram(target: str, case: Case) -> Entry:
    """The whole RAM of a node on a board; the kinds are the plan of this computer, whose pointers are longer."""
    build = builds.DETERMINISTIC

    def take(bench: Bench) -> tuple[float, Config]:
        cost, static = bench.cost(target, build, case), bench.static_bytes(target, build)
        parts = {"arena": cost.arena, "stack": cost.stack, "data and bss": static}
        kinds = plan(cases.blob(case), case.node_config).by_kind()
        return sum(parts.values()), _case_config(case, build, target) | {"what": parts, "kinds": kinds}

    return Entry("bytes", take, ((target, build, case),))


def _per_mac(target: str, build: builds.Build, density: float) -> Entry:
    name = "conv64x64"
    kernel = Case(model=name, density=density, mode="infer")
    bare = Case(model=kernels.BARE, density=1.0, mode="infer")

    def take(bench: Bench) -> tuple[float, Config]:
        spent = bench.instructions(target, build, kernel) - bench.instructions(target, build, bare)
        live = sum(int(mask.sum()) for mask in cases.masks(cases.model(name, "batch"), density).values())
        macs = live * kernels.NETS[name].pixels
        return spent / macs, _case_config(kernel, build, target) | {"macs": macs, "instructions": spent}

    return Entry("instructions per useful MAC", take, ((target, build, kernel), (target, build, bare)))


def _flash(target: str, build: builds.Build) -> Entry:
    def take(bench: Bench) -> tuple[float, Config]:
        kernels = "tuned" if build.tuned else "portable"
        what = "every operator, inference, training, scoring, the wire with its tasks, start-up code; no port"
        return bench.flash(target, build), {"target": target, "kernels": kernels, "what": what}

    return Entry("bytes", take)


def _stack(target: str) -> Entry:
    case = Case(model="ref", density=0.1, mode="train")

    def take(bench: Bench) -> tuple[float, Config]:
        bench.instructions(target, builds.DETERMINISTIC, case)
        return bench.stack(target, builds.DETERMINISTIC), {"target": target, "what": "deepest of the measured cases"}

    return Entry("bytes", take, ((target, builds.DETERMINISTIC, case),))


def _speedup(density: float) -> Entry:
    def take(bench: Bench) -> tuple[float, Config]:
        from fedtiny.bench.host_speed import compare

        bench.say("this computer: node and PyTorch, one thread")
        ours, theirs = compare(Case(model="ref", density=density, mode="train"))
        config = {"model": "ref", "density": density, "micro_batch": 1, "threads": 1}
        return theirs / ours, config | {"node_us": round(ours * 1e6, 1), "torch_us": round(theirs * 1e6, 1)}

    return Entry("times faster", take)


def _control(unit: str, measure: Callable[[Bench], int]) -> Entry:
    def take(bench: Bench) -> tuple[float, Config]:
        what = "plain nested loops, control.c, in this run"
        config = {"target": "m4f", "model": "ref", "density": 1.0, "micro_batch": 1, "flags": [builds.CONTROL_OPTIMISE]}
        return measure(bench), config | {"what": what}

    return Entry(unit, take)


def _density(value: float) -> str:
    return f"d{value:g}"


def entries() -> dict[str, Entry]:
    """Every row by its name, in the order of the table. `small` rows have the knobs of the RAM row, others none."""
    det, fast = builds.DETERMINISTIC, builds.FAST
    ref, ref_dense = Case(model="ref", density=0.1, mode="train"), Case(model="ref", density=1.0, mode="train")
    # what makes each fit: the reference net without another bit in its weights, the large ones with all that there is
    exact: Config = {"lean": True, "layerwise": True}
    small: Config = {"keep": "int8", "lean": True, "layerwise": True, "plain_sgd": True}
    ref_small = Case(model="ref", density=0.1, mode="train", **exact)
    resnet_small = Case(model="resnet8", density=0.1, mode="train", **small)
    resnet_small4 = Case(model="resnet8", density=0.1, mode="train", micro_batch=4, **small)
    dscnn_small = Case(model="dscnn", density=0.1, mode="train", **small)
    resnet_infer = Case(model="resnet8", density=0.1, mode="infer")
    found = {
        "ref.train.m4f.d0.1.instructions": _instructions("m4f", det, ref),
        "ref.train.m4f.d0.1.cycles": _cycles("m4f", det, ref),
        "ref.train.m4f.d0.1.fast.instructions": _instructions("m4f", fast, ref),
        "ref.train.m4f.d1.fast.instructions": _instructions("m4f", fast, ref_dense),
        "ref.train.d0.1.ram_bytes": _ram("m4f", ref_small),
        "resnet8.infer.m4f.d0.1.f32.fast.instructions": _instructions("m4f", fast, resnet_infer),
        "resnet8.train.d0.1.ram_bytes": _ram("m4f", resnet_small),
        "resnet8.train.mb4.d0.1.ram_bytes": _ram("m4f", resnet_small4),
        "dscnn.train.d0.1.ram_bytes": _ram("m4f", dscnn_small),
        "node.flash_bytes": _flash("m4f", det),
        "conv64x64.m4f.d0.1.fast.instructions_per_mac": _per_mac("m4f", fast, 0.1),
        "ref.train.host.d0.1.speedup_vs_torch": _speedup(0.1),
        "control.train.m4f.d1.instructions": _control("instructions", lambda b: b.control_instructions("m4f")),
        "control.train.m4f.d1.cycles": _control("cycles, modelled", lambda b: b.control_cycles("m4f")),
        "ref.train.m4f.d0.1.small.instructions": _instructions("m4f", det, ref_small),
        "resnet8.train.m4f.d0.1.small.instructions": _instructions("m4f", det, resnet_small),
        "dscnn.train.m4f.d0.1.small.instructions": _instructions("m4f", det, dscnn_small),
        "node.portable.flash_bytes": _flash("m4f", builds.PORTABLE),
        "ref.train.m4f.d0.1.portable.instructions": _instructions("m4f", builds.PORTABLE, ref),
        "node.stack_bytes": _stack("m4f"),
        "ref.train.m4f.d1.cycles": _cycles("m4f", det, ref_dense),
        "ref.train.m4f.d0.1.fast.cycles": _cycles("m4f", fast, ref),
    }
    for mode in ("infer", "train"):  # nearly full layers, held by predicted cost and as live weights alone
        for hold in ("by_cost", "sparse"):
            name = f"ref.{mode}.m4f.d0.9{'.sparse' if hold == 'sparse' else ''}.instructions"
            found[name] = _instructions("m4f", det, Case(model="ref", density=0.9, mode=mode, hold=hold))
    for model in ("ref", "resnet8", "dscnn"):
        for mode in ("infer", "train"):
            for density in (0.05, 0.1, 0.2, 1.0):
                case = Case(model=model, density=density, mode=mode)
                for build in (det, fast):
                    name = ".".join([model, mode, "m4f", _density(density), *(["fast"] * (build is fast))])
                    if f"{name}.instructions" not in found and case != resnet_infer:
                        found[f"{name}.instructions"] = _instructions("m4f", build, case)
                found[f"{model}.{mode}.{_density(density)}.quick.ram_bytes"] = _ram("m4f", case)
    for target in ("m7", "m33"):
        for mode in ("infer", "train"):
            case = Case(model="ref", density=0.1, mode=mode)
            found[f"ref.{mode}.{target}.d0.1.instructions"] = _instructions(target, det, case)
    return found


def _prepare(names: Sequence[str], folder: Path, say: Say) -> Iterator[tuple[str, str, suite.Take]]:
    every, bench = entries(), Bench(folder, say)
    for name in names:
        for want in every[name].wants:
            bench.want(*want)
    for name in names:
        yield name, every[name].unit, partial(every[name].take, bench)


KERNELS = Suite(
    names=entries, prepare=_prepare, goals=GOALS, beside=BESIDE, peers=PEERS, example="ref.train",
    notes=(
        "Cycles are modelled, not timed (bench/cycles.py); peers were counted in the same emulator (bench/peers.py).",
        *(f"Published: {text}" for text in PUBLISHED),
    ),
)  # fmt: skip
