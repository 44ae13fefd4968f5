"""Configs: every problem at once, each with its path; and the published files unchanged."""

from pathlib import Path

import pytest
from conftest import ROOT
from tiny import write_config

from configs.finetuning import read_finetuning_config
from configs.recipe import read_recipe_config
from configs.reproduction import read_reproduction_config
from configs.schema import Config, read_config
from configs.temporal import read_temporal_config
from eval.probing.feature_baselines import COMBINATIONS
from eval.probing.protocols import PROTOCOLS
from studies.registry import STUDIES
from utils.arguments import config_parser
from utils.errors import ConfigError


def problems(path: Path, *overrides: str, required: tuple[str, ...] = (), fresh: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(str(path), list(overrides), required, fresh_model=fresh)
    first, *lines = str(caught.value).split("\n")
    assert first.startswith(f"{path}: ")
    assert first.split()[1] == str(len(lines))
    return [line.strip() for line in lines]


def test_all_problems_at_once_each_with_its_path(tmp_path) -> None:
    path = write_config(
        tmp_path / "c.yaml",
        modle={"size": "S"},
        model={"img_size": 42, "num_heads": 9, "k": 3, "in_chanels": 7, "dropout": "much"},
        training={"epochs": 2.5, "batch_size": 0, "img_size": 40, "amp": "fp8"},
        data={"crop": "middle", "splits": {"train": 3}},
    )
    found = problems(path, "training.seed=-1", required=("training.dataset_path",))
    expected = {
        "modle": "unknown key; did you mean model?",
        "model.in_chanels": "unknown key; did you mean model.in_channels?",
        "model.dropout": "should be a valid number, not 'much'",
        "training.epochs": "should be a valid integer, not 2.5",
        "training.batch_size": "should be greater than or equal to 1, not 0",
        "training.img_size": "unknown key; did you mean model.img_size?",
        "training.amp": "should be a valid boolean or 'auto', 'bf16' or 'fp16', not 'fp8'",
        "training.seed": "should be greater than or equal to 0, not -1",
        "training.dataset_path": "is required by this script",
        "data.crop": "should be 'center' or 'resize', not 'middle'",
        "data.splits.train": "should be a valid string, not 3",
        "model.img_size": "42 is not a multiple of patch_size 4",
        "model.num_heads": "9 is not a multiple of num_groups 4",
        "model.k": "3 must be below the number of experts, 3",
    }
    assert sorted(found) == sorted(f"{key}: {text}" for key, text in expected.items())


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"experts": 2}, "model.k"),
        ({"experts": [3, 3]}, "model.experts"),
        ({"embed_dim": 100}, "model.embed_dim"),
        ({"in_channels": 4}, "model.in_channels"),
        ({"mask_ratio": 1.0}, "model.mask_ratio"),
        ({"mask_ratio": 0.001}, "model.mask_ratio"),
        ({"mask_ratio": 0.0}, "model.mask_ratio"),
        ({"size": "XL"}, "model.size"),
        ({"size": None, "img_size": True}, "model.img_size"),
    ],
)
def test_impossible_models(tmp_path, model: dict, named: str) -> None:
    (line,) = problems(write_config(tmp_path / "c.yaml", model=model))
    assert line.startswith(f"{named}: ")


def test_a_wrong_size_hides_nothing_that_can_be_judged_without_it(tmp_path) -> None:
    model = {"size": "M", "num_heads": 7, "num_groups": 4, "k": 5, "experts": 3}
    found = problems(write_config(tmp_path / "c.yaml", model=model))
    assert [line.split(":")[0] for line in found] == ["model.size", "model.num_heads", "model.k"]


def test_yaml_merge_keys_work(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("training: &base {epochs: 3}\nmodel: {size: S}\n")
    assert read_config(str(tmp_path / "c.yaml"), [], (), fresh_model=True).training.epochs == 3
    (tmp_path / "c.yaml").write_text("data: &d {batch_size: 4}\ntraining: {<<: *d, epochs: 3}\n")
    assert read_config(str(tmp_path / "c.yaml"), [], (), fresh_model=True).training.batch_size == 4


def test_one_expert_needs_no_k_and_lists_are_per_block(tmp_path) -> None:
    path = write_config(tmp_path / "c.yaml", model={"experts": 1})
    assert read_config(str(path), [], (), fresh_model=True).model.experts == 1
    path = write_config(tmp_path / "c.yaml", model={"depth": 2, "experts": [1, 4]})
    assert read_config(str(path), [], (), fresh_model=True).model.experts == [1, 4]


def test_numbers_that_only_the_whole_model_shows_to_be_impossible(tmp_path) -> None:
    path = write_config(tmp_path / "c.yaml", model={"size": "XXS"})
    assert problems(path, "model.read_depth=12") == ["model.read_depth: 12 is not from 1 to the model's 9 blocks"]
    assert problems(path, "model.read_depth=12", "model.depth=-1") == [problems(path, "model.depth=-1")[0]]
    assert problems(path, "model.meta_fields=[week, week]") == ["model.meta_fields: week is named twice"]


def test_where_a_checkpoint_decides_only_what_is_given_is_checked(tmp_path) -> None:
    path = write_config(tmp_path / "c.yaml", model={"embed_dim": 36})
    assert read_config(str(path), [], ()).model.embed_dim == 36


def test_overrides_are_yaml_in_order(tmp_path) -> None:
    path = write_config(tmp_path / "c.yaml", training={"epochs": 3})
    overrides = ["training.epochs=4", "training.epochs=5", "training.learning_rate=1e-3", "model.experts=[3, 4]"]
    overrides += ["data.splits={train: a.csv}", "published_behaviour=true", "training.val_csv=null", "model.depth=2"]
    config = read_config(str(path), overrides, (), fresh_model=True)
    assert config.training.epochs == 5
    assert config.training.learning_rate == 1e-3
    assert config.model.experts == [3, 4]
    assert config.data.splits == {"train": "a.csv"}
    assert config.published_behaviour is True


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.epochs", "--set: 'training.epochs' is not of the form key.sub=value"),
        ("training.epochs.x=1", "--set training.epochs.x: epochs is a value, not a section"),
        ("training.epochs=[", "--set training.epochs: '[' is not a YAML value"),
        ("training.epoch=1", "training.epoch: unknown key; did you mean training.epochs?"),
    ],
)
def test_bad_overrides(tmp_path, override: str, line: str) -> None:
    assert problems(write_config(tmp_path / "c.yaml", training={"epochs": 3}), override) == [line]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: [", "not valid YAML"),
        ("- a\n- b\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("model: {size: S}\nmodel: {size: XS}\n", "key 'model' is given twice"),
        ("true: 2", "put it in quotes"),
        ("model: {on: 2}", "'on' is read as True"),
        ("2017-01-01: 3", "put it in quotes"),
        ("data: {splits: {2017-01-01: a.csv}}", "put it in quotes"),
        ("? [a]\n: 1", "put it in quotes"),
    ],
)
def test_files_that_are_no_config(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(str(path), [], ())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot read"):
        read_config(str(tmp_path / "absent.yaml"), [], ())


PUBLISHED_PRETRAIN = """
model:
  size: S
  img_size: 40
  patch_size: 4
  in_channels: 7
training:
  dataset_path: /somewhere/bigearthnet-l
  dataset_csv: /somewhere/bigearthnet-train.csv
  epochs: 500
  batch_size: 128
  learning_rate: 3e-4
  weight_decay: 0.05
  weight_path: weights/moe_mae_bigearthnet_ls
  num_workers: 8
  save_every_n_epochs: 10
"""

PUBLISHED_EVAL = """
model:
  size: S
  img_size: 40
  patch_size: 4
  in_channels: 7
  checkpoint_path: weights/moe_mae_bigearthnet_ls/pretrained_S_best.pth
  device: mps
data:
  dataset_path: /somewhere/bigearthnet-l
  dataset_csv: /somewhere/bigearthnet-test.csv
  num_workers: 4
  batch_size: 64
eval:
  save_reconstructions_masked: true
  save_reconstructions_full: false
  reconstructions_dir: recon
"""


@pytest.mark.parametrize("text", [PUBLISHED_PRETRAIN, PUBLISHED_EVAL])
def test_the_published_keys_all_work(tmp_path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    config = read_config(str(path), [], (), fresh_model=True)
    assert config.model.size == "S"
    assert config.training.learning_rate == 3e-4
    assert config.training.weight_decay == 0.05


def test_the_defaults_are_the_paper() -> None:
    training = Config().training
    assert (training.epochs, training.batch_size, training.learning_rate) == (500, 128, 3e-4)
    assert (training.weight_decay, training.warmup_fraction, training.grad_clip) == (0.05, 0.05, 1.0)
    assert (training.visible_weight, training.balance_weight) == (0.1, 0.5)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_committed_config_is_valid_and_says_how_it_runs(path: Path) -> None:
    if path.name.startswith("recipe_"):
        read_recipe_config(str(path), [], tuple(COMBINATIONS))
    elif path.name.startswith("finetune_"):
        read_finetuning_config(str(path), [])
    elif path.name == "pretrain_temporal.yaml":
        read_temporal_config(str(path), [])
    elif path.name.startswith("reproduce_"):
        read_reproduction_config(str(path), [], tuple(STUDIES), tuple(PROTOCOLS))
    else:
        read_config(str(path), [], (), fresh_model="pretrain" in path.name)
    assert f"configs/{path.name}" in path.read_text()


def test_the_command_line_is_shared(capsys) -> None:
    parser = config_parser("What it does.", reads="section model")
    options = parser.parse_args(["--config_yaml", "c.yaml", "--set", "a.b=1", "--set", "c=2"])
    assert (options.config_yaml, options.overrides) == ("c.yaml", ["a.b=1", "c=2"])
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([])
    assert caught.value.code == 2
    assert "--config_yaml" in capsys.readouterr().err
