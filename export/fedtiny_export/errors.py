"""The one tree of exceptions. Each message says what is wrong and what to do next; the command exits with 2 on each."""

from __future__ import annotations


class FedtinyError(Exception):
    """Base of all errors that a user can mend."""


class UnsupportedModel(FedtinyError):
    """A model asks for what the node lacks; `problems` names every one of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {p}" for p in problems)
        super().__init__(
            f"fedtiny cannot run this model:\n{lines}\n"
            "Replace these by supported operators (firmware/BLOB.md: to train; docs/models.md: to infer)."
        )


class ExportError(FedtinyError):
    """A model that was exported but does not compute what it computed before, or cannot be exported at all."""


class DamagedModel(FedtinyError):
    """The bytes of a `.tflite` or ONNX file that is truncated, damaged, or none at all."""


class BlobError(FedtinyError):
    """The bytes are no valid `.ftm` blob."""


class PlanError(FedtinyError):
    """A model does not fit, or the core refused it."""


class ConfigError(FedtinyError):
    """A setting, preset or file that cannot be used."""


class DataError(FedtinyError):
    """A data set that is missing, damaged, or cannot be split as asked."""


class FleetError(FedtinyError):
    """A fleet that cannot be opened, or fewer nodes than the quorum."""


class CoreError(FedtinyError):
    """A call of the C core failed; `status` is its ft_status, 0 where the core was not reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class MessageError(FedtinyError):
    """Bytes that are no frame or message of the wire. No run ends of it: what is damaged is asked for again."""


class LinkError(FedtinyError):
    """A node that cannot be talked to; `node` is its name ("" where the link itself is at fault)."""

    def __init__(self, message: str, node: str = "") -> None:
        self.node = node
        super().__init__(message)


class LinkUnavailable(LinkError):
    """A port, address or broker that cannot be opened."""


class NothingThere(LinkUnavailable):
    """Nothing is plugged in, or listens, at the end that the link names."""


class NodeRefused(LinkError):
    """One end will not have a session with the other; `reason` is the word of link.messages.Reason, or "identity"."""

    def __init__(self, message: str, node: str, reason: str) -> None:
        self.reason = reason
        super().__init__(message, node)


class NoAnswer(LinkError):
    """A node that was silent for too long; another try may find it."""


class NodeRestarted(LinkError):
    """A node that lost its memory since it was last asked: send it again what the task needs, then the task."""


class ObjectDamaged(LinkError):
    """An object whose bytes, twice, did not have the hash that they were announced with."""
