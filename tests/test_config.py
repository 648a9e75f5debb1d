"""Reading, merging and checking configurations."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.config import RunConfig, check, load_config, merge, override, read_yaml, to_yaml
from pipeline.errors import ConfigError

SMALL = {
    "dataset": {"name": "phantom"},
    "network": {"name": "unet", "features": [8, 16]},
    "sample": {"patch_size": [16, 16, 16]},
}


def _write(folder: Path, name: str, tree: object) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(tree))
    return path


def test_extends_merges_mappings_replaces_lists_and_plugins(tmp_path: Path) -> None:
    _write(tmp_path, "base.yaml", {**SMALL, "train": {"epochs": 3, "batch_size": 4}})
    child = {"extends": "base.yaml", "train": {"epochs": 5}, "network": {"name": "unet", "features": [4, 8]}}
    config = load_config(_write(tmp_path, "child.yaml", child))
    assert (config.train.epochs, config.train.batch_size) == (5, 4)
    assert config.network.features == (4, 8)


def test_plugin_with_another_name_replaces_the_whole_section() -> None:
    merged = merge({"network": {"name": "unet", "features": [8]}}, {"network": {"name": "monai", "class": "UNet"}})
    assert merged == {"network": {"name": "monai", "class": "UNet"}}


def test_set_goes_through_the_same_checks(tmp_path: Path) -> None:
    path = _write(tmp_path, "c.yaml", SMALL)
    assert load_config(path, ["train.epochs=7"]).train.epochs == 7
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        load_config(path, ["train.epochs=many"])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        override("train.epochs")


def test_all_problems_come_at_once_with_paths(tmp_path: Path) -> None:
    tree = {**SMALL, "network": {"name": "unet", "featurs": [8]}, "train": {"epocs": 3, "batch_size": 0}, "seed": -1}
    with pytest.raises(ConfigError) as raised:
        load_config(_write(tmp_path, "c.yaml", tree))
    text = str(raised.value)
    for part in ("4 problems", "network.featurs", "'features'", "train.epocs", "'epochs'", "train.batch_size", "seed"):
        assert part in text


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\ntrain: {epochs: 1}\nseed: 2\n")
    with pytest.raises(ConfigError, match="'seed' stands twice"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "part"), [("- 1\n", "mapping"), ("a: [", "YAML"), ("!!python/object/apply:os.system ['true']\n", "YAML")]
)
def test_other_files_are_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_yaml(path)


def test_a_loop_of_extends_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a.yaml", {"extends": "b.yaml"})
    with pytest.raises(ConfigError, match="extends itself"):
        load_config(_write(tmp_path, "b.yaml", {"extends": "a.yaml"}))


def test_patch_that_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"patch_size: found 17 along H; expected a multiple of 2"):
        check({**SMALL, "sample": {"patch_size": [16, 17, 16]}}, "here")


def test_written_yaml_gives_the_same_config_back() -> None:
    config = check(SMALL, "here")
    assert check(yaml.safe_load(to_yaml(config)), "again") == config


def test_config_is_frozen() -> None:
    config = check(SMALL, "here")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_schema_knows_the_plugins() -> None:
    text = json.dumps(RunConfig.model_json_schema())
    assert "ResidualBlock" not in text
    for name in ("unet", "dice_ce", "phantom", "hu_window", "Channels at each level"):
        assert name in text


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    load_config(path)
