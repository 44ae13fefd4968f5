"""The studies: their variants and sizes by arithmetic, what they say, and every one of them run once, tiny."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from studying import few_strengths, make_context  # noqa: F401

from eval.probing import linear_probe
from eval.probing.protocols import PROTOCOLS, strong_probe
from eval.probing.representation import Vectors
from models.config import ModelConfig
from models.moe_mae import MOEMAE, count_parameters
from studies.ablations import labels as study_labels
from studies.ablations.balance import usage_by_epoch
from studies.ablations.expert_number import dense_widths, encoder_parameters, expert_variants
from studies.ablations.figures import plot_balance, plot_curves, plot_groups
from studies.ablations.labels import chosen_rows, fewer
from studies.ablations.metadata import joined
from studies.ablations.missing_metadata import missing_variants
from studies.ablations.noise import relative_change
from studies.ablations.variants import (
    PROTOCOL,
    RECIPE,
    EmbeddingSpec,
    recipe_model,
    recipe_value,
    usage_statistics,
    variant_of,
)
from studies.ablations.wording import PairedDifference, summary
from studies.engine.context import StudyContext
from studies.engine.runs import SplitRepresentation
from studies.engine.stages import StageCache
from studies.registry import STUDIES
from studies.report_parts.sections import Section, Value
from training.stopping import StopSignals

pytestmark = pytest.mark.runs

SUPPORTED, OPEN = "Significantly (?:higher|lower) ", "No significant difference in "


def _number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> StudyContext:
    return make_context(tmp_path_factory.mktemp("studies"))


# --------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", ["pooling", "metadata", "missing_metadata", "labels", "masking", "expert_number",
                                  "load_loss", "loss_scale", "noise", "transfer", "bands"])  # fmt: skip
def test_a_study_gives_a_table_with_intervals_a_figure_and_words(context: StudyContext, name: str) -> None:
    section = STUDIES[name](context)
    assert section.tables and section.figures and section.text
    assert all(figure.path.is_file() for figure in section.figures)
    assert all(len(row) == len(table.columns) for table in section.tables for row in table.rows)
    numbers = [cell for table in section.tables for row in table.rows for cell in row if isinstance(cell, Value)]
    assert len(numbers) >= 4
    assert all(math.isfinite(cell.value) and cell.low <= cell.high for cell in numbers)
    assert all(table.measured_on and table.name.startswith("study_") for table in section.tables)
    findings = [line for line in section.text if re.match(f"{SUPPORTED}|{OPEN}", line)]
    assert findings
    for line in findings:
        pairs = re.findall(r", 95 % CI ([+−][\d.]+) to ([+−][\d.]+)\)", line)
        bounds = [(_number(low), _number(high)) for low, high in pairs]
        assert bounds
        for low, high in bounds:
            assert (low <= 0 <= high) if line.startswith(OPEN) else (low >= 0 or high <= 0), line
    judged = [table for table in section.tables if table.columns[0] == "claim"]
    assert judged, "every study says which claims it tests"
    for row in (row for table in judged for row in table.rows):
        word = (
            "supported"
            if row[2].low > 0
            else "contradicted"
            if row[2].high < 0
            else "not significant (95 % CI includes 0)"
        )
        assert row[-1].startswith(word) and row[-1].endswith("single pretraining run")


def test_studies_share_their_runs_and_do_nothing_twice(context: StudyContext) -> None:
    STUDIES["masking"](context)
    STUDIES["loss_scale"](context)
    made = {stage.name for stage in context.cache.stages if stage.name.startswith("pretrain/")}
    assert "pretrain/main/seed0" in made  # the studies' recipe is the main run's here
    assert not any("mask_0750" in name or "loss_sum" in name for name in made)
    again = StageCache(context.config.out_dir, report=lambda line: None)
    section = STUDIES["masking"](StudyContext.prepare(context.config, again, StopSignals()))
    assert isinstance(section, Section)
    assert again.stages and all(stage.reused for stage in again.stages)


def test_studies_of_routing_say_so_where_there_is_none(tmp_path: Path) -> None:
    dense = make_context(tmp_path, model={"experts": 1})
    for name in ("load_loss", "loss_scale", "noise"):
        section = STUDIES[name](dense)
        assert section.text[0].startswith("Not run") and not section.tables
    assert not [stage for stage in dense.cache.stages if stage.name.startswith("pretrain")]


# --------------------------------------------------------------------------- variants


def test_a_variant_that_changes_nothing_is_the_recipe(context: StudyContext) -> None:
    assert variant_of(context, "a", "", model__mask_ratio=0.75, training__metadata_dropout=0.1).name == RECIPE
    variant = variant_of(context, "a", "", model__mask_ratio=0.5, model__load_loss="shazeer")
    assert (variant.name, variant.changes) == ("a", {"model.mask_ratio": 0.5})
    assert recipe_value(context, "model.load_loss") == "shazeer"
    assert recipe_value(context, "model.experts") == [3, 4]
    assert [variant.name for variant in missing_variants(context)] == ["pair_unseen", RECIPE, "token"]


def test_the_studies_own_recipe_decides(tmp_path: Path) -> None:
    context = make_context(tmp_path, model={"depth": 3, "k": 1}, training={"metadata_dropout": 0.3})
    assert recipe_model(context).depth == 3
    assert recipe_value(context, "training.metadata_dropout") == 0.3
    assert [variant.title for variant in expert_variants(context)][:2] == ["3–5 experts, top 1", "3–5 experts, top 2"]


@pytest.mark.parametrize("size", ["XXS", "S"])
@pytest.mark.parametrize("kind", ["active", "total"])
def test_dense_encoders_have_as_many_parameters(size: str, kind: str) -> None:
    config = ModelConfig.of_size(size)
    wanted = getattr(encoder_parameters(config), kind)
    first, last = dense_widths(config, kind)
    dense = ModelConfig.of_size(size, experts=1, dfirsth=first, dlasth=last)
    assert encoder_parameters(dense).total == encoder_parameters(dense).active
    assert abs(encoder_parameters(dense).total / wanted - 1) <= 0.005
    assert first > last > config.dlasth


def test_parameters_of_an_encoder_by_hand() -> None:
    config = ModelConfig.of_size("XXS", embed_dim=8, depth=1, num_heads=2, num_groups=1, dfirsth=3, dlasth=3, experts=4)
    found = encoder_parameters(config)
    assert found.total == count_parameters(MOEMAE(config).encoder)
    assert found.total - found.active == 2 * (8 * 3 + 3)  # the W of two experts of four


# --------------------------------------------------------------------------- labels


def test_fewer_labels_are_nested_and_of_the_right_number() -> None:
    ids = [f"p{i}" for i in range(40)]
    vectors = Vectors(np.arange(40.0)[:, None], np.ones((40, 2)), ids)
    small, large = (set(chosen_rows(vectors, share, 7)) for share in (0.1, 0.5))
    assert (len(small), len(large)) == (4, 20) and small < large
    assert len(chosen_rows(vectors, 0.001, 7)) == 2
    assert set(chosen_rows(vectors, 0.1, 8)) != small
    backwards = Vectors(vectors.x[::-1], vectors.y, ids[::-1])
    assert {backwards.ids[row] for row in chosen_rows(backwards, 0.1, 7)} == {ids[row] for row in small}


def test_every_class_keeps_its_share() -> None:
    y = np.repeat([0, 1, 2], [50, 10, 1])
    rows = chosen_rows(Vectors(np.zeros((61, 1)), y, [f"p{i}" for i in range(61)]), 0.1, 0)
    assert np.bincount(y[rows]).tolist() == [5, 1, 1]


def test_fewer_labels_leave_the_test_split_alone(context: StudyContext) -> None:
    whole = SplitRepresentation(Vectors(np.zeros((40, 1)), np.ones((40, 2)), [f"p{i}" for i in range(40)]), "digest")
    some = fewer(context, lambda split, fold: whole, 0.25, seed=1)
    assert len(some("train", 0).vectors.ids) == len(some("val", 0).vectors.ids) == 10
    assert some("test", 0) is whole
    assert some("train", 0).digest != fewer(context, lambda split, fold: whole, 0.25, seed=2)("train", 0).digest


def test_too_few_labels_are_an_empty_cell(context: StudyContext, monkeypatch) -> None:
    def refuses(*args, **kwargs):
        raise study_labels.TooFewLabelsError

    monkeypatch.setattr(study_labels, "score", refuses)
    assert study_labels._scores(context, context.data.study, "any", lambda seed: None, 0.01) is None
    assert study_labels._cell(context, None, "map_micro") is None
    assert study_labels._gap(context, None, None, "map_micro") is None


# --------------------------------------------------------------------------- numbers and words


def test_use_of_experts_by_hand() -> None:
    even, uneven = np.array([[2, 2], [4, 4]]), np.array([[3, 1], [0, 8]])
    found = usage_statistics([even, uneven])
    assert found["cv"](np.array([1.0, 0.0])) == pytest.approx((0 + 0.5) / 2)
    assert found["cv"](np.array([1.0, 1.0])) == pytest.approx((0 + 0.5) / 2)  # 3 of 12, 9 of 12
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert found["entropy"](np.array([1.0, 1.0])) == pytest.approx((1 + entropy) / 2)
    assert found["smallest"](np.array([0.0, 1.0])) == 0.0
    assert found["entropy"](np.array([0.0, 1.0])) == pytest.approx(0.5)  # 0 log 0 is 0


def test_usage_by_epoch_reads_the_log(tmp_path: Path) -> None:
    rows = [{"expert_usage": [[0.5, 0.5], None]}, {"expert_usage": [[0.25, 0.75], [0.5, 0.5]]}]
    (tmp_path / "training_log_XXS.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")

    assert usage_by_epoch(tmp_path) == pytest.approx([0.0, 0.25])


def test_words_follow_from_intervals() -> None:
    values = {"up": Value(2.0, 1.0, 3.0), "down": Value(-2.0, -3.0, -1.0), "open": Value(2.0, -1.0, 3.0),
              "edge": Value(0.5, 0.0, 1.0), "alone": Value(2.0), "none": None}  # fmt: skip
    several = [PairedDifference(name, "b", value, "score") for name, value in values.items()]
    assert summary(several) == [
        "Significantly higher score (95 % CI of the difference above 0): up vs. b (+2.0 points, 95 % CI +1.0 to +3.0).",
        "Significantly lower score (95 % CI of the difference below 0): down vs. b (−2.0 points, 95 % CI −3.0 to "
        "−1.0).",
        "No significant difference in score (95 % CI includes 0): open vs. b (+2.0 points, 95 % CI −1.0 to +3.0); "
        "edge vs. b (+0.5 points, 95 % CI +0.0 to +1.0).",
        "No confidence interval for a difference in score: alone vs. b; none vs. b.",
    ]


def test_representations_are_joined_patch_by_patch() -> None:
    first = SplitRepresentation(Vectors(np.array([[1.0], [2.0]]), np.ones((2, 1)), ["p", "q"]), "x")
    second = SplitRepresentation(Vectors(np.array([[20.0], [10.0]]), np.ones((2, 1)), ["q", "p"]), "y")
    both = joined(first, second)
    assert both.vectors.x.tolist() == [[1.0, 10.0], [2.0, 20.0]]
    assert both.digest not in (first.digest, second.digest)
    with pytest.raises(KeyError):
        joined(first, SplitRepresentation(second.vectors.rows(np.array([0])), "y"))


def test_relative_change() -> None:
    assert relative_change(np.array([[3.0, 4.0]]), np.array([[3.0, 3.0]])) == pytest.approx([0.2])


def test_an_embedding_of_another_condition_has_a_name_of_its_own() -> None:
    specs = [
        EmbeddingSpec("cls"),
        EmbeddingSpec("mean"),
        EmbeddingSpec("cls", "missing"),
        EmbeddingSpec("cls", noise=1),
        EmbeddingSpec("cls", "missing", 1),
        EmbeddingSpec("cls", bands="six"),
    ]
    assert len({spec.name for spec in specs}) == len(specs)


def test_more_features_than_patches_change_nothing_but_the_work() -> None:
    """Turned into the space of the training patches, a fit predicts what it does on all features."""
    random = np.random.default_rng(0)
    x, extra = random.normal(size=(60, 12)), random.normal(size=(12, 70))
    y = (x[:, :2] + random.normal(size=(60, 2)) > 0).astype(int)
    ids = [f"p{i}" for i in range(60)]
    parts = [np.arange(0, 40), np.arange(40, 50), np.arange(50, 60)]

    def splits(features: np.ndarray) -> list[Vectors]:
        return [Vectors(features[rows], y[rows], [ids[row] for row in rows]) for rows in parts]

    wide = splits(x @ extra)  # 70 features of 40 patches, of rank 12
    turned = strong_probe(*wide, ["a", "b"])
    most, linear_probe.MOST_TURNED = linear_probe.MOST_TURNED, 0
    try:
        plain = strong_probe(*wide, ["a", "b"])
    finally:
        linear_probe.MOST_TURNED = most
    assert turned.details["C"] == plain.details["C"] and turned.details["features"] == 70
    np.testing.assert_allclose(turned.scores, plain.scores, atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_figures_are_narrow_and_leave_out_what_was_not_run(several: bool) -> None:
    values = {"a row with a name that is too long for one line": Value(1.0, 0.5, 2.0), "b": None}
    series = {"first": values, "second": values} if several else {"": values}
    curves = {name: list(one.values()) for name, one in series.items()}
    for figure in (plot_groups(series, "x"), plot_curves(curves, [1, 100], "x", "y", log=True),
                   plot_balance({"a": [[0.1, 0.2], [0.3, 0.4]]}, "CV")):  # fmt: skip
        assert figure.get_size_inches()[0] <= 6
        figure.canvas.draw()


def test_the_protocol_of_the_studies_is_there() -> None:
    assert PROTOCOL in PROTOCOLS
