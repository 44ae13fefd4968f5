"""The sanity experiments and the study of the experts, on a tiny model: what they measure, their marks, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from studying import few_strengths, small_views  # noqa: F401
from tiny import TINY_MODEL, sample_ids, write_config

from configs.reproduction import read_reproduction_config
from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from datasets.simulator.truth import ground_truth
from eval.evaluate_mae import evaluation_masking
from eval.probing.protocols import PROTOCOLS
from models import build_model
from models.losses import LossWeights
from models.masking import random_masking
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.encoders import Encoder, first_seed
from studies.engine.masked_losses import MODEL, image_errors
from studies.engine.stages import StageCache
from studies.engine.subset import truth_folder
from studies.experts import section as experts
from studies.experts.section import experts_section
from studies.experts.tables import collapse_alarms
from studies.report_parts.sections import Section, Table
from studies.sanity import __main__ as sanity
from studies.sanity import metadata as sanity_metadata
from studies.sanity import overfit as sanity_overfit
from studies.sanity.experiments import NOT_PASSED
from studies.sanity.metadata import metadata_section
from studies.sanity.overfit import FixedMasks, Recipe, overfit, overfit_section
from studies.sanity.routing import LEAST_IMAGES, routing_section
from training.optimizer import adamw
from training.step import StepOptions
from training.stopping import StopSignals
from utils.errors import ConfigError

pytestmark = pytest.mark.runs

CPU = torch.device("cpu")
TINY = Recipe(patches=6, steps=30, batch_size=3, depth=1, looks=3)


def config_file(folder: Path, **changes: object) -> Path:
    """A reproduction of seconds: a tiny model and few patches."""
    ids = (SAMPLE / "bigearthnet-train.csv").read_text().split()
    parts = {"train": ids[:80], "val": ids[80:90], "test": ids[90:110]}
    for split, names in parts.items():
        (folder / f"{split}.csv").write_text("\n".join(names) + "\n")
    values = {
        "out_dir": str(folder / "out"),
        "model": {**TINY_MODEL, "experts": [3, 4]},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3},
        "data": {"dataset_path": str(SAMPLE), "splits": {split: str(folder / f"{split}.csv") for split in parts}},
        "embed": {"pools": ["mean"]},
        "study": {"pool": "mean"},
        "protocols": ["strong_probe"],
        "bootstrap": {"draws": 100},
        **changes,
    }
    return write_config(folder / "reproduce.yaml", **values)


def context_of(config: Path, *overrides: str) -> StudyContext:
    read = read_reproduction_config(str(config), list(overrides), (), tuple(PROTOCOLS))
    return StudyContext.prepare(read, StageCache(read.out_dir, report=lambda text: None), StopSignals())


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> StudyContext:
    return context_of(config_file(tmp_path_factory.mktemp("sanity")))


def table(section: Section, name: str) -> Table:
    return next(one for one in section.tables if one.name == name)


def check(section: Section) -> None:
    """What every section has to keep."""
    assert all(figure.path.is_file() and figure.path.stat().st_size > 3_000 for figure in section.figures)
    for one in section.tables:
        assert "simulated" in one.measured_on and all(len(row) == len(one.columns) for row in one.rows)


# --------------------------------------------------------------------------- overfit


@pytest.fixture
def loader(tmp_path) -> BatchLoader:
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(6)))
    dataset = BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv")
    dataset.hold_in_memory()
    return BatchLoader(dataset, 3, 0, CPU)


def test_masks_are_those_of_the_evaluation_at_every_step(loader) -> None:
    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    model = build_model("XXS", seed=0, **numbers)
    options = StepOptions(5, LossWeights(), 1.0, 0.0, None, batch_size=3)
    step = FixedMasks(model, adamw(model, CPU, 1e-3, 0.0), options, torch.amp.GradScaler("cpu", enabled=False))
    for number, order in ((0, [0, 1, 2]), (9, [2, 1, 0])):
        batch = next(loader.training_batches(order))
        inputs = step.inputs(batch, number)
        found, wanted = random_masking(inputs.mask_noise, 0.75), evaluation_masking(batch, model, 5)
        assert torch.equal(found.mask, wanted.mask) and torch.equal(found.ids_keep, wanted.ids_keep)


def test_overfitting_lowers_the_loss_on_the_fixed_masks(loader) -> None:
    model, curve = overfit(loader, 0, TINY)
    assert [step for step, _ in curve] == [0, 10, 20, 30] and not model.training
    assert curve[-1][1] < 0.8 * curve[0][1]
    short = TINY._replace(steps=2)
    assert overfit(loader, 1, short)[1] == overfit(loader, 1, short)[1], "a function of the seed"


def test_overfit_section(context, monkeypatch) -> None:
    section = overfit_section(context, TINY)
    check(section)
    (same, other, unseen) = table(section, "sanity_overfit").rows
    assert section.passed is (same[3].value < 10) and "too short" in section.text[1]
    assert same[3].value == pytest.approx(100 * same[1].value / same[2].value)
    assert same[2].value != other[2].value != unseen[2].value, "three measurements"
    assert all(row[3].low <= row[3].value <= row[3].high for row in (same, other, unseen))
    monkeypatch.setattr(sanity_overfit, "PASS_SHARE", same[3].value / 100 + 0.01)
    assert overfit_section(context, TINY).passed is True


# --------------------------------------------------------------------------- routing and metadata


def test_routing_section(context) -> None:
    section = routing_section(context)
    check(section)
    untrained, main = table(section, "sanity_routing").rows
    assert untrained[0] == "untrained encoder" and main[0] == "this model"
    assert 1 / 200 <= main[3].value <= 1 and section.passed is (main[3].value <= 0.01)
    assert main[2].low <= main[2].high and " of " in main[4]
    stage = next(stage for stage in context.cache.stages if stage.name == "sanity/routing/main")
    assert len(stage.result["images"]) > 1 and min(stage.result["images"]) >= LEAST_IMAGES


def test_routing_needs_distinct_covers(tmp_path) -> None:
    config = config_file(tmp_path)
    (tmp_path / "train.csv").write_text("\n".join(sample_ids(2)))
    (tmp_path / "val.csv").write_text("\n".join(sample_ids(4)[2:]))
    (tmp_path / "test.csv").write_text("\n".join(sample_ids(6)[4:]))
    section = routing_section(context_of(config))
    assert section.passed is None and "Not run" in section.text[0]


def test_metadata_section(context) -> None:
    section = metadata_section(context)
    check(section)
    own, missing, shuffled = table(section, "sanity_metadata").rows[:3]
    assert own[2] is None and own[4] is None
    for row in (missing, shuffled):
        assert row[1].value == pytest.approx(own[1].value - row[2].value)
        assert row[3].value == pytest.approx(own[3].value + row[4].value)
        assert row[4].low <= row[4].high
    assert section.passed is (shuffled[2].low > 0)
    assert len({row[3].value for row in (own, missing, shuffled)}) == 3, (
        "the encoder was conditioned on three different things"
    )


def test_masked_losses_are_of_all_folds(tmp_path) -> None:
    """Each patch is counted once, by the run of the fold that tests it."""
    context = context_of(config_file(tmp_path, data={"simulate": {"patches": 40, "seed": 4}, "folds": 3}))
    source = context.data.main
    runs = [context.runs.untrained(seed=fold, name=f"fold{fold}") for fold in range(3)]
    encoder = Encoder("some", "some", (0,), lambda seed, fold: runs[fold])
    parts = []
    for fold, run in enumerate(runs):
        loader = source.loader("test", CPU, run.config, fold, labels=False)
        errors, ids = image_errors(context.runs.model(run), loader, context.config.seed)
        parts.append((errors[MODEL].error.sum(), errors[MODEL].weight.sum(), len(ids)))
    error, weight, count = np.sum(parts, axis=0)
    assert count == 40
    assert sanity_metadata._loss(context, encoder, source, "given").value == pytest.approx(error / weight)


def test_what_is_of_one_seed_says_so(tmp_path) -> None:
    one = context_of(config_file(tmp_path))
    assert first_seed(one) == []
    (said,) = first_seed(one._replace(config=one.config.model_copy(update={"pretraining_seeds": [3, 4, 5]})))
    assert "seed 3 only, the first of 3" in said


def test_too_few_areas_cannot_pass(context, monkeypatch) -> None:
    """Where all patches lie in three areas no shuffling can reach the mark: neither passed nor failed."""
    monkeypatch.setattr(Source, "blocks", lambda self, ids: np.arange(len(ids)) % 3)
    config = context.config.model_copy(update={"seed": context.config.seed + 1})  # not the stages of the other tests
    section = routing_section(context._replace(config=config, cache=StageCache(context.cache.folder, lambda _: None)))
    assert section.passed is None and "3 areas are too few" in section.text[1]
    assert "cannot be" in section.text[1]


# --------------------------------------------------------------------------- the experts


def test_experts_section(context, small_views) -> None:  # noqa: F811
    section = experts_section(context)
    check(section)
    every, blocks = table(section, "experts_main"), table(section, "blocks_main")
    assert [row[0] for row in every.rows] == [
        f"block {block}, expert {expert}" for block, count in enumerate((3, 4)) for expert in range(count)
    ]
    assert [len(blocks.rows), len(table(section, "expert_specialisation").rows)] == [2, 2]
    for rows in (every.rows[:3], every.rows[3:]):
        assert sum(row[1].value for row in rows) == pytest.approx(100)
        assert sum(row[2].value for row in rows) == pytest.approx(100)
    for row in every.rows:
        assert all(cell.low <= cell.high for cell in (row[1], row[3], row[4]))
    assert all(row[4].value > 0 and row[5].low <= row[5].high for row in blocks.rows), (
        "the truth of the sample is known"
    )
    assert not any("expert collapse" in sentence for sentence in section.text)
    names = {figure.path.name for figure in section.figures}
    assert {"experts.png", "assignment.png", "ablation_maps.png", "tokens.png", "images.png"} <= names


def test_experts_of_patches_whose_ground_is_not_known(tmp_path, monkeypatch, small_views) -> None:  # noqa: F811
    monkeypatch.setattr(experts, "truth_folder", lambda *_: None)
    monkeypatch.delitem(experts.PARTS, "planes")  # which the truth changes nothing of
    section = experts_section(context_of(config_file(tmp_path, training={"epochs": 1})))
    check(section)
    assert "not known" in section.text[0]
    assert [row[4:7] for row in table(section, "blocks_main").rows] == [[None] * 3] * 2
    assert table(section, "expert_specialisation").rows[1][3:8] == [None] * 5


def test_the_truth_of_simulated_patches_is_found_and_no_other(tmp_path, context) -> None:
    assert truth_folder(context, context.data.main) == SAMPLE
    config = config_file(tmp_path, data={"simulate": {"patches": 12, "seed": 3}, "pack": True})
    simulated = context_of(config)
    folder = truth_folder(simulated, simulated.data.main)
    assert folder is not None and ground_truth(folder, simulated.data.main.dataset("test").ids).shape[1:] == (40, 40)
    (folder / "README.md").unlink()
    assert truth_folder(simulated, simulated.data.main) is None


def test_a_dense_model_has_no_experts(tmp_path) -> None:
    context = context_of(config_file(tmp_path, model={**TINY_MODEL, "experts": 1}, training={"epochs": 1}))
    section = experts_section(context)
    assert not section.tables and "no routing" in section.text[0]
    assert "one expert" in routing_section(context).text[0]


def test_collapsed_experts_of_a_run_are_reported(tmp_path) -> None:
    down = {"block": 3, "expert": 1, "share": 0.002}
    rows = [{"epoch": 1, "collapsed_experts": [down, {**down, "expert": 0}]}, {"epoch": 2, "collapsed_experts": [down]}]
    (tmp_path / "training_log_XXS.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "2 experts" in collapse_alarms(tmp_path) and "expert 1 of block 3 still" in collapse_alarms(tmp_path)
    (tmp_path / "training_log_XXS.jsonl").write_text(json.dumps({"epoch": 1, "collapsed_experts": []}))
    assert collapse_alarms(tmp_path) == ""


# --------------------------------------------------------------------------- the command


def test_the_command_writes_a_report_and_exits_by_the_mark(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("studies.sanity.experiments.QUICK", TINY)
    config = config_file(tmp_path)
    arguments = ["overfit", "--out", str(tmp_path / "work"), "--quick", "--config_yaml", str(config)]
    code = sanity.main(arguments)
    report = json.loads((tmp_path / "work" / "overfit" / "report.json").read_text())
    (section,) = report["sections"]
    assert section["passed"] is (code == 0) and code in (0, NOT_PASSED)
    assert len(list((tmp_path / "work" / "overfit" / "figures").glob("*.png"))) == 2
    assert "Criterion: masked loss below 10%" in capsys.readouterr().out
    monkeypatch.setattr(sanity_overfit, "overfit", None)  # it is not done twice
    assert sanity.main(arguments) == code


def test_the_command_refuses_what_is_wrong(tmp_path, capsys) -> None:
    with pytest.raises(ConfigError, match="trainig"):
        sanity.main(["routing", "--out", str(tmp_path), "--set", "trainig.epochs=3"])
    with pytest.raises(SystemExit):
        sanity.main(["baking", "--out", str(tmp_path)])
    assert "overfit" in capsys.readouterr().err


def test_figures_are_finite() -> None:
    figure = sanity_overfit.plot_overfit([(0, 100.0), (10, 5.0)], 20.0)
    assert np.isfinite(figure.axes[0].get_ylim()).all()
