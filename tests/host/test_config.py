"""Settings: presets load, what is written reads back, a mistake is answered with its key and the nearest valid one."""

from pathlib import Path

import pytest

from fedtiny.config import allowed, keys, load_config, make_config, presets, to_toml
from fedtiny_export.errors import ConfigError


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_has_a_title(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.title == presets()[name] != ""


def test_the_main_preset_is_what_the_readme_promises() -> None:
    config = load_config("fashion-mini")
    assert (config.data.name, config.data.split, config.data.alpha) == ("fashion-mini", "dirichlet", 0.5)
    assert (config.model.name, config.fleet.kind, config.fleet.nodes) == ("resnet-mini", "native", 10)
    assert (config.train.micro_batch, config.train.local_epochs) == (8, 2)
    assert (config.pruning.method, config.pruning.density) == ("fedtiny", 0.05)


@pytest.mark.parametrize("name", presets())
def test_resolved_settings_read_back_to_the_same_settings(name: str, tmp_path: Path) -> None:
    config = load_config(name, ["data.data_dir='a \"quoted\" folder/ü'", "train.lr=1e-05", "seed=4294967295"])
    (tmp_path / "config.toml").write_text(to_toml(config), "utf-8")
    assert load_config(tmp_path / "config.toml") == config


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    path = tmp_path / "my file.toml"
    path.write_text('base = "fashion-mini"\n[pruning]\ndensity = 0.2\n')
    mine, base = load_config(path), load_config("fashion-mini")
    assert mine.pruning.density == 0.2
    assert mine.pruning.pool_size == base.pruning.pool_size
    assert mine.train == base.train
    assert mine.name == "my-file"


def test_overrides_take_toml_values_and_bare_words() -> None:
    config = load_config("quick", ["train.lr = 1", "model.norm=group", "run.bn_refresh=train", 'data.name="x.npz"'])
    assert (config.train.lr, config.model.norm, config.run.bn_refresh, config.data.name) == (
        1,
        "group",
        "train",
        "x.npz",
    )
    assert load_config("quick", {"pruning.density": 0.5}).pruning.density == 0.5


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "pruning.densty=0.1",
            ["unknown key pruning.densty", "Did you mean pruning.density?", "Keys of [pruning]: method"],
        ),
        ("density=0.1", ["unknown key density", "Did you mean pruning.density?"]),
        ("trian.lr=1", ["unknown key trian.lr", "Did you mean train.lr?"]),
        ("fleets.nodes=1", ["unknown key fleets.nodes", "Did you mean fleet.nodes?"]),
        ("train=3", ["unknown key train"]),
        ("pruning.density=0", ["pruning.density = 0", "0 < density <= 1"]),
        ("pruning.density=1.01", ["pruning.density = 1.01", "0 < density <= 1"]),
        ("pruning.density=nan", ["pruning.density = nan", "0 < density <= 1"]),
        ("train.micro_batch=257", ["train.micro_batch = 257", "1 <= micro_batch <= 256"]),
        ("train.rounds=2.5", ["train.rounds = 2.5", "a whole number"]),
        ("fleet.nodes=true", ["fleet.nodes = true", "a whole number"]),
        ("train.lr=fast", ['train.lr = "fast"', "a number"]),
        ("fleet.kind=nativ", ["fleet.kind", "one of native, simulated", "Did you mean native?"]),
        ("seed=-1", ["seed = -1", "0 <= seed"]),
        ("name=a/b", ['name = "a/b"', "letters, digits"]),
        ("fleet.device=gpu", ["fleet.device", "cpu, cuda"]),
        ("nonsense", ["key=value"]),
    ],
)
def test_a_wrong_override_is_answered_with_the_key_and_what_is_allowed(override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quick", [override])
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[pruning]\ndensity = 2\n[train]\nround = 5\n[data]\nsplit = 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in ("pruning.density = 2", "unknown key train.round. Did you mean train.rounds?", "data.split = 3"):
        assert part in str(caught.value)


def test_a_value_in_place_of_a_section_names_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("fleet = 10\n")
    with pytest.raises(ConfigError, match=r"\[fleet\] must be a table. Its keys: kind, nodes"):
        load_config(path)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("fashion-mni", "Did you mean fashion-mini?"),
        ("nowhere.toml", "cannot read nowhere.toml"),
        ("../presets/quick", "unknown preset"),
    ],
)
def test_an_unknown_source_is_refused(source: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(source)
    assert part in str(caught.value)


def test_broken_toml_and_a_wrong_base_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[pruning\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(path)
    path.write_text('base = "quik"\n')
    with pytest.raises(ConfigError, match=r"Did you mean quick\?"):
        load_config(path)


def test_every_setting_says_what_it_is_and_what_is_allowed() -> None:
    for key, info in keys().items():
        assert allowed(key), key
        assert info.description, key


def test_settings_do_not_change_once_made() -> None:
    config = make_config({})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
