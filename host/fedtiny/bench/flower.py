"""Flower's own simulation of the FedAvg of fedavg.py, round by round on demand, in a process of its own.

Flower (flwr, with ray) is the extra `flower`: nothing else here imports it. Its parts are used as its PyTorch tutorial
does: a ClientApp that trains, a ServerApp with its strategy FedAvg, and `run_simulation`, whose server looks for
replies every 0.1 s (a run that `flwr run` starts looks every 3 s). Every core has a client of one thread. In its
favour: a client keeps its net and its samples between rounds, and takes batches by index, not by a data loader.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtiny.bench import fedavg
from fedtiny_export.errors import FleetError

if TYPE_CHECKING:
    from torch import nn

HOW = f"{sys.executable} -m pip install 'fedtiny[flower]'"
_STOPS_S = 60


def missing() -> str | None:
    """What to do before Flower can be timed; None: it is here."""
    if find_spec("flwr") and find_spec("ray"):
        return None
    return f"Flower is not installed, so nothing is compared with it: {HOW}"


class Flower:
    """A simulation that waits for `round`. Raises FleetError, with what Flower said last, where it does not run."""

    def __init__(self, *, nodes: int, samples: int, rounds: int) -> None:
        if problem := missing():
            raise FleetError(problem)
        self._folder = Path(tempfile.mkdtemp(prefix="ft-"))  # short: ray's sockets lie in it
        self._said = self._folder / "said"
        command = "from fedtiny.bench.flower import serve; serve()"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-c", command, str(nodes), str(samples), str(rounds), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
                | {"FLWR_HOME": str(self._folder)},
            )  # fmt: skip
        self._wait()

    def round(self) -> None:
        """From the server's sampling to the new global model."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # what was said last tells more
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._wait()

    def close(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # its next wait ends it, and what it started
        try:
            self._process.wait(_STOPS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        assert self._process.stdout
        if not self._process.stdout.readline():
            lines = self._said.read_text(errors="replace").splitlines()
            self.close()
            raise FleetError("Flower's simulation ended: " + "\n".join(lines[-8:]))


@cache
def _net() -> nn.Module:
    return fedavg.net().to(fedavg.device())


def _train(message: Any, context: Any) -> Any:
    """A client's part of a round."""
    import torch
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    torch.set_num_threads(1)  # a client a core
    module = _net()
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = fedavg.tensors(int(context.node_config["partition-id"]), int(message.content["config"]["samples"]))
    loss = fedavg.train_locally(module, x, y)
    answer: dict[str, Any] = {
        "arrays": ArrayRecord(module.state_dict()),
        "metrics": MetricRecord({"train_loss": loss, "num-examples": len(x)}),
    }
    return Message(content=RecordDict(answer), reply_to=message)


def serve() -> None:
    """The process of `Flower`: a line on its standard output when it is ready, and one after each round that a line on
    its standard input asks for."""
    nodes, samples, rounds = (int(word) for word in sys.argv[1:4])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Flower and ray print is no answer

    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    def after(number: int, _: Any) -> None:
        answers.write(f"{number}\n")
        if number < rounds and not sys.stdin.readline():
            raise RuntimeError("nobody asks for more rounds")

    def main(grid: Any, _: Any) -> None:
        FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes).start(
            grid=grid,
            initial_arrays=ArrayRecord(fedavg.net().state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({"samples": samples}),
            evaluate_fn=after,
        )

    client, server = ClientApp(), ServerApp()
    client.train()(_train)
    server.main()(main)
    cores = len(os.sched_getaffinity(0))
    gpus = 1 / cores if fedavg.device() == "cuda" else 0.0
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=nodes,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": gpus},
            "init_args": {"num_cpus": cores, "_temp_dir": sys.argv[4]},
        },
    )
