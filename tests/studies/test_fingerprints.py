"""Inputs of the stages that train and build encoders, against those recorded: a stage made once is not made again.

A hash that changes here makes everybody's finished reproduction start over. A new key of a configuration therefore
counts only where it says something else than what was done before there was such a key.
"""

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT

from configs.build import resolved_config
from configs.reproduction import ReproductionConfig, read_reproduction_config
from configs.schema import read_config
from studies.engine.context import StudyContext
from studies.engine.runs import Runs
from training.recipe import first_model, recipe_of, step_options
from training.stopping import StopSignals

RECORDED = {
    "reproduce_paper/pretrained": "4cfd1d0030b07673dee1b7a026a51607d68d2daf91d45479052d3e4f3c0c657a",
    "reproduce_paper/study": "7c7d457f753acc883a8e975fe36ba7931224f7137876bb8094f837fe244c4080",
    "reproduce_paper/variants": "5cd5e5892711f24c1120213b47112f894ab089d3f8763765e8382585d04a9288",
    "reproduce_paper/untrained": "8662d431efbb9e8ed295c9ca29c2c46b8070fac8815bb919bed79c36109119aa",
    "reproduce_real_sample/pretrained": "93cbf1a208fbb23381bd17cc3227167212f8788382862d1aa3764fbbd2e6fe23",
    "reproduce_real_sample/study": "ede505425ddfe39fbf9178c27dfe3eb06417602dc36a23c88b7a4dfccb2664b8",
    "reproduce_real_sample/variants": "a6b2b83cc5591808f74d869e7ee9281cfb205a73a6b6e2a3d197d02f214473a1",
    "reproduce_real_sample/untrained": "2249ebd94340fd98cf92c5aab0940f95663bd98c31d26939d033288157582ecc",
    "reproduce_sample/pretrained": "26fea3efd8366c5183c7ecd45e4cfb0490d2deae0153fb34b5a779c2c008a4fb",
    "reproduce_sample/study": "7a15ad4c6c639e46f05707507ccea51d098d353a6596b8868295de317e2be9b0",
    "reproduce_sample/variants": "9e2c58f3609fd516d2d229196f3dc85fe6c921877600f8192cb2bb309f716037",
    "reproduce_sample/untrained": "a6cfe8aca4ae45bb1405c86351cd3375501fa358935cc2a4b24da354990b23ee",
    "pretrain_moe_mae/recipe": "c86a8e06ff0b1415c79e06f3a1b4e045d7e926dd5d87bff229252f1048b96e0e",
    "sample_pretrain/recipe": "fa2ffd489c2c011f69978b2eda2149e702a99f7a390aa8926985e61f9a7d904a",
    "simulated_pretrain/recipe": "3133cebf2195f06f6f43c81f95b038668c2f5d81bc0eab07cd9532daf15f03c5",
}
"""Name to SHA-256 of the inputs as JSON with sorted keys."""

VARIANTS = (
    {"model.mask_ratio": 0.5},
    {"model.experts": 3, "model.k": 1},
    {"model.load_loss": "published"},
    {"model.missing_metadata": "token"},
    {"training.balance_weight": 0.0},
)
"""What studies change."""


class Asked(Exception):
    """Ends a stage before its work begins."""


class Recorder:
    """A cache of stages that takes down the inputs of a stage and does nothing."""

    folder = ROOT / "outputs"

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}

    def stage(self, name: str, inputs: dict[str, Any], *_: Any, **__: Any) -> None:
        self.inputs = dict(inputs)
        raise Asked


def source_of(config: ReproductionConfig) -> SimpleNamespace:
    """A dataset that nobody reads."""
    return SimpleNamespace(
        section=config.data,
        path="patches",
        folds=(SimpleNamespace(name=""),),
        split_file=lambda split, fold=0: f"{split}.csv",
        dataset=lambda split, *_, **__: SimpleNamespace(fingerprint=lambda: f"fingerprint of {split}"),
    )


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def stage_inputs(name: str) -> dict[str, list[dict[str, Any]]]:
    """By kind of stage, the inputs that a reproduction's config gives."""
    config = read_reproduction_config(str(ROOT / "configs" / f"{name}.yaml"), [], _everything(), _everything())
    recorder = Recorder()
    source = source_of(config)
    data = SimpleNamespace(main=source, study=source)
    runs = Runs(recorder, config, data, StopSignals())  # type: ignore[arg-type]
    short = StudyContext(recorder, config, data, runs).study_overrides  # type: ignore[arg-type]

    def asked(overrides: dict[str, Any], untrained: bool = False) -> dict[str, Any]:
        with pytest.raises(Asked):
            runs.untrained(overrides, 1) if untrained else runs.pretrained(overrides, 1)
        return recorder.inputs

    return {
        "pretrained": [asked({})],
        "study": [asked(short)],
        "variants": [asked({**short, **changes}) for changes in VARIANTS],
        "untrained": [asked(changes, untrained=True) for changes in ({}, *VARIANTS)],
    }


def _everything() -> Any:
    """Studies and protocols of any name."""

    class All(tuple):
        def __contains__(self, name: object) -> bool:
            return True

    return All()


def run_recipe(name: str) -> dict[str, Any]:
    """What a resumed pretraining run of a config has to agree with."""
    config = read_config(str(ROOT / "configs" / f"{name}.yaml"), ["model.size=XXS"], (), fresh_model=True)
    model = first_model(config)
    dataset = SimpleNamespace(crop="center", statistics_name="bigearthnet_ls")
    options = step_options(config, model.config, SimpleNamespace(type="cpu"))  # type: ignore[arg-type]
    resolved = resolved_config(config, model, dataset, {"training"})  # type: ignore[arg-type]
    resolved["training"].update(metadata_dropout=options.metadata_dropout, amp=False)
    return recipe_of(config, model, resolved)


def found(name: str) -> str:
    config, kind = name.split("/")
    return digest(run_recipe(config) if kind == "recipe" else stage_inputs(config)[kind])


@pytest.mark.parametrize("name", RECORDED)
def test_inputs_are_those_recorded(name: str) -> None:
    assert found(name) == RECORDED[name]
