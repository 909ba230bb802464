"""Settings of a run: TOML files and presets, checked by pydantic, with messages that name the key.

A file may start from a preset (`base = "fashion-mini"`) and say only what differs. Overrides (`key=value` with a dotted
key) come on top. The resolved settings of a run lie in its folder as config.toml and load to the same settings.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fedtiny.pruning.catalog import check_name, make_method
from fedtiny.pruning.density import Rule
from fedtiny.pruning.initial import Initial
from fedtiny.pruning.method import Method
from fedtiny.pruning.progressive import Granularity
from fedtiny_export.errors import ConfigError

PRESETS = Path(__file__).with_name("presets")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSettings(Section):
    name: str = Field("fashion-mini", description="a data set by name, or the path of an .npz with x, y[, user]")
    data_dir: str | None = Field(None, description="folder of the data set's files; the default is its usual place")
    split: Literal["dirichlet", "user", "even"] = Field("dirichlet", description="how samples are dealt to nodes")
    per_node: int = Field(0, ge=0, le=10_000_000, description="most samples that a node gets of its share; 0 = all")
    alpha: float = Field(0.5, gt=0, le=1e6, description="of the Dirichlet split: smaller = more unlike nodes")


class ModelSettings(Section):
    name: str = Field("resnet-mini", description="a reference model by name")
    width: int | None = Field(None, ge=1, le=512, description="channels of the first stage; the default is the model's")
    norm: Literal["batch", "frozen", "group", "standardised"] = Field(
        "batch",
        description="over the micro-batch, by the server's statistics, per sample, or so with standardised weights",
    )


class FleetSettings(Section):
    kind: Literal["native", "simulated", "wire"] = Field(
        "native", description="the C core in this process, torch, or the devices of a fleet file"
    )
    nodes: int = Field(10, ge=1, le=10_000, description="nodes that train")
    workers: int = Field(0, ge=0, le=1024, description="nodes that work at the same time; 0 = one per core")
    ram_bytes: int = Field(0, ge=0, lt=2**31, description="most memory that a node may take for a model; 0 = any")
    board: str | None = Field(
        None,
        description="a board by name: a model must fit its RAM, less stack and data (samples and blob lie elsewhere)",
    )
    force_training: bool = Field(False, description="train on boards whose file says why not to, such as esp32c3")
    device: str = Field(
        "cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="of the simulated fleet: cpu, cuda or cuda:0"
    )
    stacked: bool = Field(False, description="simulated nodes train as one torch program (one a core, on a CPU)")
    file: str | None = Field(None, description="the fleet file of a wire fleet (docs/fleet.md)")


class TrainSettings(Section):
    rounds: int = Field(30, ge=1, le=100_000, description="federated rounds")
    local_epochs: int = Field(2, ge=1, le=1000, description="passes over a node's samples in each round")
    micro_batch: int = Field(8, ge=1, le=256, description="samples per step of a node; batch norms need 4 or more")
    lr: float = Field(0.1, gt=0, le=10, description="learning rate of the first round")
    lr_decay: Literal["constant", "cosine"] = Field("cosine", description="how it falls over the rounds")
    lr_final: float = Field(0.1, ge=0, le=1, description="share of lr that cosine leaves in the last round")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(0.0005, ge=0, lt=1, description="of SGD, on every trained parameter")
    loss: Literal["cross_entropy", "mse"] = Field(
        "cross_entropy", description="of the softmax, or the mean squared error from the label's one-hot vector"
    )
    keep: Literal["f32", "f16", "int8"] = Field(
        "f32", description="what training keeps of activations: as they are, or rounded to take less memory"
    )
    upload: Literal["f32", "f16"] = Field(
        "f32", description="how trained values go up: as they are, or rounded to half the bytes"
    )
    last_layers: int = Field(
        0, ge=0, le=1000, description="only the last so many layers train; what is before them stays; 0 = all"
    )
    augment: Literal["none", "shift", "crop-flip"] = Field(
        "none", description="how samples are varied in training, never in measuring; only simulated nodes do it"
    )
    lean: bool = Field(False, description="convolutions row by row on a node: less memory, slower, the same bits")


class PruningSettings(Section):
    method: str = Field("fedtiny", description="a method by name, or a class of your own as path/file.py:Name")
    density: float = Field(0.05, gt=0, le=1, description="share of all convolution and linear weights that live")
    rule: Rule = Field("fedtiny", description="how the density is shared out among the layers")
    initial: Initial | None = Field(None, description="what ranks weights at the start; the default is the method's")
    selection: bool = Field(True, description="whether the nodes choose among candidates; else the magnitude mask")
    adaptation: bool = Field(True, description="whether candidates are judged with batch norms measured for each")
    pool_size: int = Field(0, ge=0, le=10_000, description="candidates; 0 = the published 0.1 / density")
    spread: float = Field(0.5, ge=0, lt=1, description="how far a candidate's layer densities lie apart")
    progressive: bool = Field(True, description="whether masks change while training")
    delta_rounds: int = Field(10, ge=1, le=100_000, description="rounds from one adjustment to the next")
    stop_round: int = Field(100, ge=1, le=100_000, description="no adjustment after this round")
    granularity: Granularity = Field("block", description="what one adjustment changes")
    score_batches: int = Field(4, ge=1, le=10_000, description="mini-batches that a node's top-K gradients average")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="what only this method knows, such as {temperature = 100.0} for grasp"
    )


class PretrainSettings(Section):
    per_class: int = Field(5, ge=1, le=100_000, description="public samples per class, held out from the nodes")
    epochs: int = Field(3, ge=0, le=10_000, description="passes over them; 0 = start from random weights")
    lr: float = Field(0.05, gt=0, le=10, description="learning rate")
    batch: int = Field(16, ge=2, le=4096, description="samples per step")


class RunSettings(Section):
    quorum: float = Field(0.5, gt=0, le=1, description="share of the nodes that must answer; fewer stop the run")
    bn_refresh: Literal["train", "measure"] = Field(
        "measure", description="batch norm statistics of a round: as seen in training, or measured anew after it"
    )


class Config(Section):
    """All settings of a run. `name`: of the preset or file it comes from."""

    name: str = Field(
        "custom",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=64,
        description="letters, digits, dots and dashes",
    )
    title: str = Field("", max_length=200, description="one line about it")
    seed: int = Field(0, ge=0, lt=2**32, description="of everything drawn at random")
    data: DataSettings = Field(default_factory=DataSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    fleet: FleetSettings = Field(default_factory=FleetSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    pruning: PruningSettings = Field(default_factory=PruningSettings)
    pretrain: PretrainSettings = Field(default_factory=PretrainSettings)
    run: RunSettings = Field(default_factory=RunSettings)


def presets() -> dict[str, str]:
    """Names of the presets that ship, each with its one-line title."""
    return {path.stem: str(_read(path).get("title", "")) for path in sorted(PRESETS.glob("*.toml"))}


def load_config(source: str | Path, overrides: Mapping[str, object] | Iterable[str] = ()) -> Config:
    """The settings of a preset (by name) or of a TOML file, with overrides on top.

    Overrides: a mapping of dotted keys to values, or `key=value` strings whose value is TOML (a bare word is text).
    Raises ConfigError naming the key, what is allowed and the nearest valid key.
    """
    path = _find(str(source))
    table = _with_base(_read(path), path)
    table.setdefault("name", re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or "custom")
    pairs = overrides.items() if isinstance(overrides, Mapping) else (parse_override(text) for text in overrides)
    for key, value in pairs:
        _put(table, key, value)
    return make_config(table, origin=str(source))


def make_config(table: Mapping[str, object], *, origin: str = "the settings") -> Config:
    """Settings from nested tables. Raises ConfigError; `origin` is what messages call the source."""
    try:
        config = Config.model_validate(dict(table))
        check_name(config.pruning.method)
    except ValidationError as error:
        problems = "\n".join(_problem(dict(detail)) for detail in error.errors(include_url=False))
        raise ConfigError(f"{origin}: {problems}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return config


def method_of(config: Config) -> Method:
    """The method that the settings name."""
    pruning = config.pruning
    settings = pruning.model_dump(exclude={"method", "options"}, exclude_none=True)
    settings |= {"last_layers": config.train.last_layers}
    return make_method(pruning.method, settings, pruning.options)


def parse_override(text: str) -> tuple[str, object]:
    """`key=value` -> (dotted key, value); the value is read as TOML, and as plain text where it is none."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        raise ConfigError(f"{text!r} is no setting. Write it as key=value, for example -s train.lr=0.05.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def to_toml(config: Config) -> str:
    """All settings as TOML that `load_config` reads back to an equal Config."""
    table = config.model_dump(exclude_none=True)
    scalars = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in scalars.items()]
    for section, values in table.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def keys() -> dict[str, FieldInfo]:
    """Every setting by its dotted key."""
    return dict(_walk(Config, ""))


def value_of(config: Config, key: str) -> object:
    """A setting by its dotted key."""
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


def allowed(key: str) -> str:
    """What a setting may be, in words: `a number, 0 < density <= 1`."""
    info = keys()[key]
    kind = info.annotation
    literal = next((part for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None)
    options = get_args(literal) if literal is not None else ()
    if options:
        return "one of " + ", ".join(map(str, options))
    if kind is bool:
        return "true or false"
    words = "text"
    if get_origin(kind) is dict:
        return f"a table ({info.description})"
    if any(hasattr(rule, "pattern") for rule in info.metadata):
        return f"text ({info.description})"
    if kind in (int, int | None):
        words = "a whole number"
    elif kind is float:
        words = "a number"
    name = key.rpartition(".")[2]
    bounds = _bounds(info)
    low = bounds.get("ge"), bounds.get("gt")
    high = bounds.get("le"), bounds.get("lt")
    left = f"{low[0]} <= " if low[0] is not None else f"{low[1]} < " if low[1] is not None else ""
    right = f" <= {high[0]}" if high[0] is not None else f" < {high[1]}" if high[1] is not None else ""
    return f"{words}, {left}{name}{right}" if left or right else words


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _walk(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def _bounds(info: FieldInfo) -> dict[str, object]:
    names = ("ge", "gt", "le", "lt")
    return {name: getattr(rule, name) for rule in info.metadata for name in names if hasattr(rule, name)}


def _find(source: str) -> Path:
    path = PRESETS / f"{source}.toml"
    if "/" not in source and path.is_file():
        return path
    if source.endswith(".toml") or Path(source).is_file():
        return Path(source)
    raise ConfigError(
        f"unknown preset {source!r}.{_did_you_mean(source, presets())} Presets: {', '.join(presets())}. "
        f"A file of settings ends in .toml. `fedtiny presets` lists what each one is."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Name a preset or an existing .toml file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend that line.") from None


def _with_base(table: dict[str, Any], path: Path) -> dict[str, Any]:
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str) or base not in presets():
        raise ConfigError(
            f"{path}: base = {base!r} is no preset.{_did_you_mean(str(base), presets())} "
            f"Presets: {', '.join(presets())}."
        )
    merged = {key: value for key, value in _read(PRESETS / f"{base}.toml").items() if key not in ("name", "title")}
    for key, value in table.items():
        merged[key] = merged[key] | value if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def _put(table: dict[str, Any], key: str, value: object) -> None:
    if key not in keys():
        raise ConfigError(_unknown(key))
    *sections, name = key.split(".")
    for section in sections:
        table[section] = dict(table.get(section, {}))
        table = table[section]
    table[name] = value


def _problem(detail: dict[str, Any]) -> str:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return _unknown(key)
    if key not in keys():
        section = [name.removeprefix(f"{key}.") for name in keys() if name.startswith(f"{key}.")]
        return f"[{key}] must be a table. Its keys: {', '.join(section)}."
    given = detail["input"]
    hint = _did_you_mean(given, allowed(key).removeprefix("one of ").split(", ")) if isinstance(given, str) else ""
    return f"{key} = {_toml(given)} is not allowed: {key} must be {allowed(key)}.{hint}"


def _unknown(key: str) -> str:
    known = list(keys())
    section, _, name = key.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == section]
    same_name = [other for other in known if other.rpartition(".")[2] == name]
    near = same_name or [f"{section}.{m}".lstrip(".") for m in difflib.get_close_matches(name, siblings, 1, 0.6)]
    near = near or difflib.get_close_matches(key, known, 1, 0.6)
    if not near:  # a misspelt section with a good name, or a good name with no section
        names = {other.rpartition(".")[2]: other for other in known}
        near = [names[m] for m in difflib.get_close_matches(name, list(names), 1, 0.7)]
    hint = f" Did you mean {near[0]}?" if near else ""
    if section and siblings:
        return f"unknown key {key}.{hint} Keys of [{section}]: {', '.join(siblings)}."
    sections = dict.fromkeys(other.partition(".")[0] for other in known if "." in other)
    top = [other for other in known if "." not in other]
    return f"unknown key {key}.{hint} Sections: {', '.join(sections)}. Keys outside of them: {', '.join(top)}."


def _did_you_mean(given: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(choices), 1, 0.5)
    return f" Did you mean {near[0]}?" if near else ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
