"""What a run comes to, as plain data: the content of result.json (docs/result.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedtiny.federation.tasks import F32, Infer, LinkBytes, Load, Logits, Loss, NodeFailure, NodeHistory, NodeReport
from fedtiny_export.errors import FedtinyError
from fedtiny_export.graph import Bits, Graph
from fedtiny_export.masks import encode_smallest, entropy_bytes
from fedtiny_export.model import Model

if TYPE_CHECKING:
    from fedtiny.config import Config
    from fedtiny.experiment import Experiment

SCHEMA_VERSION = 1
PARITY_SAMPLES = 500


def build_result(experiment: Experiment, *, run_id: str) -> dict[str, Any]:
    """result.json of an experiment, finished or stopped after some round."""
    from fedtiny_export import write_blob

    config, server, rows = experiment.config, experiment.server, experiment.rows
    model, data = experiment.model, experiment.dataset
    blob = write_blob(model.graph, model.arrays, experiment.masks)
    last = rows[-1] if rows else None
    reports = experiment.reports()
    rounds_s = sum(row["seconds"] for row in rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "state": "finished" if server.round >= config.train.rounds else "stopped",
        "preset": config.name,
        "method": config.pruning.method,
        "fleet": experiment.fleet.name,
        "dataset": data.name,
        "model": experiment.model_name,
        "classes": data.classes,
        "class_names": list(data.class_names),
        "input_shape": list(data.input_shape),
        "normalisation": {"mean": list(data.normalisation.mean), "std": list(data.normalisation.std)},
        "seed": config.seed,
        "nodes": len(experiment.fleet.nodes),
        "rounds": server.round,
        "rounds_planned": config.train.rounds,
        "density_target": experiment.method.density,
        "density_actual": server.density,
        "accuracy": last["accuracy"] if last else None,
        "loss": last["loss"] if last else None,
        "accuracy_by_round": [row["accuracy"] for row in rows],
        "loss_by_round": [row["loss"] for row in rows],
        "candidates": _candidates(experiment),
        "adjustments": [row["adjusted"] for row in rows if row["adjusted"] is not None],
        "failures": _problems(rows, "failed"),
        "rejections": _problems(rows, "rejected"),
        "bytes": {
            "down": server.traffic.down,
            "up": server.traffic.up,
            "by_kind": server.traffic.by_kind,
            "dense_fedavg": server.traffic.dense_fedavg,
            "masks": {"bytes": server.traffic.mask_bytes, "entropy": round(server.traffic.mask_entropy, 1)},
            "link": _link(server.traffic.link),
        },
        "flops": {"per_round_max": server.flops_per_round_max, "ratio_to_dense": server.flops_ratio_to_dense},
        "costs": costs_of(experiment, reports),
        "memory": _memory(experiment, reports),
        "layers": _layers(model.graph, server.densities, experiment.masks),
        "density_by_round": {name: [row["densities"][name] for row in rows] for name in model.graph.layer_names},
        "nodes_report": _nodes(experiment, reports),
        "boards": _boards(experiment, reports),
        "model_sha256": hashlib.sha256(blob).hexdigest(),
        "model_bytes": len(blob),
        "files": [],
        "parity": parity(model, blob, data.x_test[:PARITY_SAMPLES], micro_batch=config.train.micro_batch),
        "preparation_s": round(experiment.preparation_s, 3),
        "wall_s": round(experiment.preparation_s + rounds_s, 3),
    }


def parity(model: Model, blob: bytes, x: F32, *, micro_batch: int = 1) -> dict[str, float | int | None]:
    """Largest difference of any logit over x (n, C, H, W): torch to ONNX Runtime, and torch to a native node.

    `node_max_abs` is None where no native node can be had (no C core installed) or the model is too large for it.
    """
    from fedtiny_export.onnx_out import to_onnx
    from fedtiny_export.runtimes import onnxruntime_logits, torch_logits

    expected = torch_logits(model, x)
    try:
        on_node: float | None = max_abs(native_logits(blob, x, micro_batch=micro_batch), expected)
    except FedtinyError:
        on_node = None
    return {
        "onnxruntime_max_abs": max_abs(onnxruntime_logits(to_onnx(model), x), expected),
        "node_max_abs": on_node,
        "samples": len(x),
    }


def native_logits(blob: bytes, x: F32, *, micro_batch: int = 1) -> F32:
    """x (n, C, H, W) -> logits (n, classes) of the C core running a blob. Raises FleetError where it cannot."""
    from fedtiny.fleet import open_fleet
    from fedtiny_export.errors import FleetError

    fleet = open_fleet("native", ("check",), workers=1)
    try:
        for _, answer in fleet.ask({"check": [Load(blob=blob, micro_batch=micro_batch), Infer(x=x)]}):
            if isinstance(answer, NodeFailure):
                raise FleetError(f"the native node cannot run the model: {answer.reason}")
            return next(reply.logits for reply in answer if isinstance(reply, Logits))
    finally:
        fleet.close()
    raise FleetError("the native node did not answer. Install fedtiny again: pip install -e .")


def evaluate_saved(blob: bytes, onnx_bytes: bytes, config: Config) -> dict[str, Any]:
    """A saved model on its test samples: accuracy and loss on a native node and in ONNX Runtime, and how they agree."""
    import onnx

    from fedtiny.data import load_dataset
    from fedtiny_export.runtimes import onnxruntime_logits

    data = load_dataset(config.data.name, config.data.data_dir)
    on_node = native_logits(blob, data.x_test)
    in_onnx = onnxruntime_logits(onnx.load_from_string(onnx_bytes), data.x_test)
    runtimes = {}
    for name, logits in (("node", on_node), ("onnxruntime", in_onnx)):
        loss, accuracy = loss_and_accuracy(logits, data.y_test, config.train.loss)
        runtimes[name] = {"accuracy": accuracy, "loss": loss}
    return {
        "dataset": data.name,
        "samples": len(data.y_test),
        **runtimes,
        "agreement": float((on_node.argmax(axis=1) == in_onnx.argmax(axis=1)).mean()),
        "max_abs": max_abs(on_node, in_onnx),
    }


def max_abs(a: F32, b: F32) -> float:
    return float(np.abs(a - b).max(initial=0.0))


def loss_and_accuracy(logits: F32, y: NDArray[np.uint16], loss: Loss) -> tuple[float, float]:
    """Mean loss of logits (n, classes) in float64, and the share of samples whose largest logit is their class.

    cross_entropy: of the softmax, in nats; mse: over all outputs, from the label's one-hot vector.
    """
    wide = logits.astype(np.float64)
    if loss == "mse":
        losses = np.square(wide - np.eye(wide.shape[1])[y]).mean(axis=1)
    else:
        shifted = wide - wide.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return float(losses.mean()), float((logits.argmax(axis=1) == y).mean())


def _candidates(experiment: Experiment) -> dict[str, Any]:
    selection = experiment.selection
    if selection is None:
        return {"count": 0, "losses": [], "chosen": None, "bytes": 0, "bytes_if_sent_apart": 0}
    return {
        "count": selection.count,
        "losses": list(selection.losses),
        "accuracies": list(selection.accuracies),
        "densities": list(selection.densities),
        "chosen": selection.chosen,
        "bytes": selection.bytes,
        "bytes_if_sent_apart": selection.bytes_if_sent_apart,
        "flops": selection.flops,
    }


def _problems(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{"round": row["round"], **problem} for row in rows for problem in row[key]]


def _memory(experiment: Experiment, reports: dict[str, NodeReport]) -> dict[str, Any]:
    """Of the node that takes most; by_kind are the planner's numbers."""
    plans = experiment.server.plans.values()
    largest = max(plans, key=lambda plan: plan.plan_bytes, default=None)
    return {
        "plan_bytes": largest.plan_bytes if largest else None,
        "peak_bytes": max((report.peak_bytes for report in reports.values()), default=None),
        "by_kind": dict(largest.memory) if largest else {},
    }


def costs_of(experiment: Experiment, reports: dict[str, NodeReport]) -> dict[str, Any]:
    """What the run took, counted in the same way for every method; `node_s` where nodes are boards that tell time."""
    server, costs = experiment.server, experiment.server.costs
    sizes = [server.model.graph.params[index].size for index in server.model.graph.layers]
    busiest = max(reports.values(), key=lambda report: report.busy_s, default=None)
    told = busiest if experiment.config.fleet.kind == "wire" else None
    return {
        "flops_total": costs.flops_total,
        "flops_preparation": costs.flops_preparation,
        "flops_dense_total": server.flops_dense_per_round * server.round,
        "paper_memory_bytes": costs.paper_memory,
        "models_given": costs.models_given,
        "weights": sum(sizes),
        "weights_live": round(server.density * sum(sizes)),
        "down_by_kind": server.traffic.down_by_kind,
        "up_by_kind": server.traffic.up_by_kind,
        "board": told.board if told else None,
        "node_s": round(told.busy_s, 3) if told else None,
    }


def _nodes(experiment: Experiment, reports: dict[str, NodeReport]) -> list[dict[str, Any]]:
    plans, links = experiment.server.plans, experiment.fleet.links()
    rows = []
    for node, shard in experiment.shards.items():
        report, plan = reports.get(node), plans.get(node)
        rows.append(
            {
                "node": node,
                "board": report.board if report else None,
                "samples": len(shard.y),
                "plan_bytes": plan.plan_bytes if plan else None,
                "peak_bytes": report.peak_bytes if report else None,
                "busy_s": round(report.busy_s, 3) if report else None,
                "link": links[node].link if node in links else None,
                "profile": links[node].profile if node in links else None,
                "firmware": links[node].firmware if node in links else None,
            }
        )
    return rows


def _boards(experiment: Experiment, reports: dict[str, NodeReport]) -> list[dict[str, Any]]:
    """Each node as a device: what it took, how long, what went wrong."""
    server, links = experiment.server, experiment.fleet.links()
    seen, rows = experiment.fleet.histories(), []
    for node in experiment.shards:
        report, plan, link = reports.get(node), server.plans.get(node), links.get(node)
        history, moved = seen.get(node, NodeHistory(tasks={})), server.traffic.link.get(node)
        rows.append(
            {
                "node": node,
                "board": (report.board if report else "") or (link.board if link else "") or None,
                "link": link.link if link else None,
                "profile": link.profile if link else None,
                "firmware": link.firmware if link else None,
                "plan_bytes": plan.plan_bytes if plan else None,
                "peak_bytes": report.peak_bytes if report else None,
                "arena_bytes": history.arena_bytes,
                "memory": dict(plan.memory) if plan else {},
                "busy_s": round(report.busy_s, 3) if report else None,
                "tasks": {
                    kind: {"count": spent.count, "seconds": round(spent.seconds, 3)}
                    for kind, spent in history.tasks.items()
                },
                "bytes": {"down": dict(moved.down), "up": dict(moved.up)} if moved else None,
                "boots": report.boots if report else None,
                "resets": history.resets if link else None,
                "sessions": history.sessions if link else None,
                "refused": history.refused if link else None,
                "dropped": {"node": report.dropped if report else None, "host": dict(history.dropped)}
                if link
                else None,
                "asked_again": (
                    {"node": report.asked_again if report else None, "host": history.asked_again} if link else None
                ),
                "resent": history.resent if link else None,
                "failures": _count(experiment.rows, "failed", node),
                "rejections": _count(experiment.rows, "rejected", node),
                "last_seen": history.last_seen,
            }
        )
    return rows


def _count(rows: list[dict[str, Any]], key: str, node: str) -> int:
    return sum(problem["node"] == node for row in rows for problem in row[key])


def _link(link: Mapping[str, LinkBytes]) -> dict[str, Any] | None:
    """What went over the nodes' links, frames and retries included; None where they have none."""
    if not link:
        return None
    down, up = Counter[str](), Counter[str]()
    for both in link.values():
        down.update(both.down)
        up.update(both.up)
    return {
        "down": down.total(),
        "up": up.total(),
        "by_kind": dict(down + up),
        "by_node": {node: {"down": dict(both.down), "up": dict(both.up)} for node, both in link.items()},
    }


def _layers(graph: Graph, densities: dict[str, float], masks: Mapping[str, Bits]) -> list[dict[str, Any]]:
    """`mask_bytes` as it would travel alone, `mask_entropy` the least that could do, in bytes; None where dense."""
    rows = []
    for name, index in zip(graph.layer_names, graph.layers, strict=True):
        param = graph.params[index]
        live, mask = round(densities[name] * param.size), masks.get(name)
        rows.append(
            {
                "name": name,
                "shape": list(param.shape),
                "size": param.size,
                "live": live,
                "dense": mask is None,
                "mask_bytes": None if mask is None else len(encode_smallest(mask).data),
                "mask_entropy": None if mask is None else round(entropy_bytes(mask.size, live), 1),
            }
        )
    return rows
