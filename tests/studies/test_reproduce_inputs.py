"""What a reproduction is given: changed statistics, damaged files, configs that do not fit, areas that touch."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from studying import few_strengths, make_context  # noqa: F401
from tiny import TINY_MODEL, some_pixels, write_bigearthnet, write_config, write_tif

from configs.reproduction import ReproductionConfig, read_reproduction_config
from eval.probing.protocols import PROTOCOLS
from eval.probing.representation import Vectors
from studies.ablations import labels as study_labels
from studies.ablations import transfer as study_transfer
from studies.ablations.labels import TooFewLabelsError, can_be_fitted, fewer
from studies.ablations.masking import variant_name
from studies.ablations.transfer import transfer_section, transfer_variants
from studies.comparison import literature as beside_published
from studies.comparison.baselines import baseline
from studies.comparison.main_table import STATISTICS
from studies.comparison.reconstruction import reconstruction_section
from studies.engine import stages as cache
from studies.engine.context import StudyContext
from studies.engine.data import ReproductionData, Source, read_data
from studies.engine.run_config import recipe_of, run_config
from studies.engine.runs import SplitRepresentation
from studies.engine.stages import StageCache
from studies.sanity import __main__ as sanity
from training.stopping import StopSignals
from utils.errors import ConfigError, DataError, UserError
from utils.locks import held_alone

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> StudyContext:
    return make_context(tmp_path_factory.mktemp("inputs"))


def again(context: StudyContext, config: ReproductionConfig | None = None) -> StudyContext:
    """A later run in the same folder."""
    config = config or context.config
    later = StageCache(config.out_dir, report=lambda line: None)
    return StudyContext.prepare(config, later, StopSignals())


def with_statistics(context: StudyContext, key: str) -> StudyContext:
    """A later run that normalises a dataset by the other one's statistics."""
    section = getattr(context.config, key)
    other = {"bigearthnet_ls": "eurosat_ls", "eurosat_ls": "bigearthnet_ls"}[section.dataset]
    changed = section.model_validate({**section.model_dump(exclude_unset=True), "statistics": other})
    return again(context, context.config.model_copy(update={key: changed}))


# --------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("key", ["main", "eurosat"])
def test_other_statistics_redo_what_looks_at_pixels(context: StudyContext, key: str) -> None:
    later = with_statistics(context, "data" if key == "main" else key)
    found = []
    for one in (context, again(context), later):
        source = getattr(one.data, key)
        vectors = one.runs.embeddings(one.runs.untrained(), "cls", "test", source=source).vectors.x
        simple = baseline(one, source, STATISTICS, 4)("test", 0).vectors.x
        found.append((vectors, simple, one.cache.stages[-1].reused))
    first, same, other = found
    assert np.array_equal(first[0], same[0]) and same[2]
    assert not np.allclose(first[0], other[0]) and not np.allclose(first[1], other[1]) and not other[2]


def test_digests_tell_statistics_labels_and_no_labels_apart(context: StudyContext) -> None:
    later = with_statistics(context, "data")
    digests = [one.data.main.digest("test", labels=labels) for one in (context, later) for labels in (True, False)]
    assert len(set(digests)) == 4


def test_other_statistics_are_another_recipe_of_pretraining(context: StudyContext) -> None:
    recipes = [
        recipe_of(run_config(one.config, {}, one.data.main, 0, 0, Path("run")))
        for one in (context, with_statistics(context, "data"))
    ]
    assert [one["data"]["statistics"] for one in recipes] == ["auto", "eurosat_ls"]


def test_other_statistics_redo_the_reconstruction(context: StudyContext, monkeypatch) -> None:
    run = context.runs.untrained()
    context.runs.model(run)
    stages = []
    for one in (context, with_statistics(context, "data")):
        monkeypatch.setattr(one.runs, "pretrained", lambda *args, **kwargs: run)
        monkeypatch.setattr("studies.comparison.reconstruction._figures", lambda context: [])
        reconstruction_section(one)
        stages.append(next(stage for stage in one.cache.stages if stage.name.startswith("reconstruction/")))
    assert not stages[1].reused and stages[0].result != stages[1].result


# --------------------------------------------------------------------------- few labels, damaged files


def represented(y: np.ndarray, reads: list[int]) -> SplitRepresentation:
    def read() -> Vectors:
        reads.append(len(y))
        return Vectors(np.random.default_rng(0).normal(size=(len(y), 3)), y, [f"p{i}" for i in range(len(y))])

    return SplitRepresentation(read, f"vectors of {y.tobytes().hex()}")


def test_a_draw_of_one_class_cannot_be_fitted(context: StudyContext) -> None:
    assert can_be_fitted(np.array([0, 2])) and can_be_fitted(np.array([[0, 1], [0, 0]]))
    assert not can_be_fitted(np.array([2, 2])) and not can_be_fitted(np.zeros((3, 2), int))
    for share in (0.5, 1.0):
        some = fewer(context, lambda split, fold: represented(np.zeros((8, 2), int), []), share, seed=0)
        with pytest.raises(TooFewLabelsError):
            _ = some("train", 0).vectors
        assert len(some("val", 0).vectors.ids) == 8 * share
    source = context.data.study
    nothing = represented(np.zeros((8, len(source.classes)), int), [])
    assert study_labels._scores(context, source, "nothing", lambda seed: lambda split, fold: nothing, 0.5) is None


def test_a_damaged_file_is_no_empty_cell(context: StudyContext) -> None:
    def damaged() -> Vectors:
        raise DataError("b.tif: cannot be read")

    broken = SplitRepresentation(damaged, "damaged")
    with pytest.raises(DataError, match=r"b\.tif"):
        study_labels._scores(context, context.data.study, "broken", lambda seed: lambda split, fold: broken, 0.5)


def test_vectors_are_read_only_for_what_is_not_done(context: StudyContext) -> None:
    y = np.tile(np.eye(len(context.data.study.classes), dtype=int), (2, 1))

    def reads_of(one: StudyContext) -> int:
        reads: list[int] = []
        vectors = {split: represented(y, reads) for split in ("train", "val", "test")}
        study_labels._scores(one, one.data.study, "lazy", lambda seed: lambda split, fold: vectors[split], 0.5)
        return len(reads)

    assert [reads_of(one) for one in (context, again(context))] == [3, 0]


# --------------------------------------------------------------------------- stages and their files


def stage_of(folder: Path, data: bytes = b"0123456789") -> cache.Stage:
    def work(place: Path) -> int:
        (place / "file").write_bytes(data)
        return len(data)

    return StageCache(folder, report=lambda line: None).stage("a", {"n": 1}, work)


def test_a_flipped_byte_redoes_a_stage(tmp_path: Path) -> None:
    file = stage_of(tmp_path).folder / "file"
    assert stage_of(tmp_path).reused
    file.write_bytes(b"0123X56789")
    assert not stage_of(tmp_path).reused
    assert file.read_bytes() == b"0123456789" and stage_of(tmp_path).reused


def test_a_large_file_is_read_again_when_its_time_has_changed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "READ_AGAIN", 4)
    file = stage_of(tmp_path).folder / "file"
    os.utime(file, (1, 1))
    assert stage_of(tmp_path).reused, "a copy has another time and the same bytes"
    file.write_bytes(b"0123X56789")
    os.utime(file, (2, 2))
    assert not stage_of(tmp_path).reused


def test_records_of_old_are_taken_or_redone(tmp_path: Path) -> None:
    record = stage_of(tmp_path).folder / "stage.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "files": {"file": 10}}))
    assert stage_of(tmp_path).reused, "sizes alone are as good as they were"
    (record.parent / "file").write_bytes(b"shorter")
    assert not stage_of(tmp_path).reused
    record.write_text("[]")
    assert not stage_of(tmp_path).reused


def test_two_sanity_experiments_at_once_are_refused(tmp_path: Path) -> None:
    with held_alone(tmp_path, "at work"):
        before = list(tmp_path.iterdir())
        with pytest.raises(UserError, match="another process is at work in it"):
            sanity.main(["overfit", "--quick", "--out", str(tmp_path)])
        assert list(tmp_path.iterdir()) == before


# --------------------------------------------------------------------------- the config


@pytest.mark.parametrize(
    "override",
    [
        "protocols=[]", "protocols=[knn5,knn5]", "studies=[pooling,pooling]", "embed.pools=[cls,cls]",
        "study.pools=[cls,mean,cls]", "study.seeds=[1,1]", "pretraining_seeds=[2,2]", "study.mask_ratios=[0.5,0.5]",
        "study.mask_ratios=[0.5,0.50000001]", "study.label_shares=[0.1,0.1,1]", "study.experts=[3,3]",
        "data.gap=true",
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_at_the_start(tmp_path: Path, override: str) -> None:
    splits = {"train": "a.csv", "test": "b.csv"}
    path = write_config(tmp_path / "c.yaml", model=TINY_MODEL, data={"dataset_path": str(SAMPLE), "splits": splits})
    assert read_reproduction_config(str(path), [], ("pooling",), tuple(PROTOCOLS))
    with pytest.raises(ConfigError) as caught:
        read_reproduction_config(str(path), [override], ("pooling",), tuple(PROTOCOLS))
    problems = str(caught.value).splitlines()[1:]
    assert len(problems) == 1 and problems[0].strip().startswith(f"{override.partition('=')[0]}: ")


def test_ratios_have_names_of_their_own() -> None:
    assert [variant_name(ratio) for ratio in (0.25, 0.5, 0.57, 0.125, 0.9)] == [
        "mask_0250", "mask_0500", "mask_0570", "mask_0125", "mask_0900",
    ]  # fmt: skip
    close = (0.5, 0.5001, 0.0005, 0.00051, 1e-5)
    assert len({variant_name(ratio) for ratio in close}) == len(close)


def test_arms_of_the_transfer_may_coincide(tmp_path: Path) -> None:
    """With metadata dropout 1, the pair is seen in 100 %, which is pretraining without metadata."""
    context = make_context(tmp_path, training={"metadata_dropout": 1.0})
    names = [variant.name for variant in transfer_variants(context)]
    assert len(set(names)) < len(names)
    section = transfer_section(context)
    table = next(table for table in section.tables if table.name == "study_transfer")
    titles = [row[0] for row in table.rows]
    assert len(titles) == len(set(titles)) == len(set(names)) + 1
    assert STATISTICS in titles and study_transfer.untrained_variant().title in titles


# --------------------------------------------------------------------------- beside published results


def test_a_third_dataset_never_stands_beside_published_scores(context: StudyContext, monkeypatch) -> None:
    main, eurosat, _, study = context.data
    other = Source("other", main.section, main.path, main.folds, context.runs.untrained().config)
    seen = []
    monkeypatch.setattr(
        beside_published, "_our_row", lambda context, title, sources, rows: seen.append(sources) or [title] + [None] * 6
    )
    rows = {"data": [SimpleNamespace(title=STATISTICS, encoder=None)]}
    beside_published.published_section(context._replace(data=ReproductionData(main, eurosat, other, study)), rows)
    assert seen == [{"bigearthnet_ls": main, "eurosat_ls": eurosat}]


# --------------------------------------------------------------------------- areas that touch

PATCHES = 50
"""In a row, 1,200 m apart: five squares of 12 km or so."""


@pytest.fixture(scope="module")
def strip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("strip")
    names = [f"S2A_MSIL2A_20170613T101031_{column}_7" for column in range(PATCHES)]
    write_bigearthnet(folder, {}, {name: ["Pastures"] for name in names})
    for column, name in enumerate(names):
        write_tif(folder / "images" / f"{name}.tif", some_pixels(column), origin=(500_000 + 1200 * column, 5.5e6))
    (folder / "split.csv").write_text("\n".join(names) + "\n")
    return folder


def strip_source(strip: Path, out: Path, **section: object) -> Source:
    data = {"dataset_path": str(strip), "splits": {"all": str(strip / "split.csv")}, **section}
    config = ReproductionConfig.model_validate({"out_dir": str(out), "model": TINY_MODEL, "data": data})
    return read_data(config, StageCache(out, report=lambda line: None)).main


def columns(source: Source, split: str, fold: int) -> set[int]:
    return {int(name.split("_")[-2]) for name in source.dataset(split, fold=fold, labels=False).ids}


@pytest.mark.parametrize("how", [{"folds": 3}, {"split_by": "area"}])
def test_a_gap_lies_around_every_test_patch(strip: Path, tmp_path: Path, how: dict) -> None:
    plain, gap = (strip_source(strip, tmp_path / str(value), **how, gap=value) for value in (False, True))
    for fold in range(len(gap.folds)):
        tested = columns(gap, "test", fold)
        assert tested == columns(plain, "test", fold)
        beside = {column + step for column in tested for step in (-1, 1)}
        before = columns(plain, "train", fold) | columns(plain, "val", fold)
        after = columns(gap, "train", fold) | columns(gap, "val", fold)
        assert before & beside and after == before - beside
        assert gap.folds[fold].left_out == len(before & beside) and plain.folds[fold].left_out == 0
    assert "adjacent to a test patch left out" in gap.measured_on()
    assert "left out" not in plain.measured_on()
    assert f"{min(fold.left_out for fold in gap.folds)}" in gap.measured_on()
    assert torch.equal(gap.dataset("test", labels=False)[0].image, plain.dataset("test", labels=False)[0].image)


def test_a_gap_that_leaves_nothing_is_refused(strip: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("studies.engine.divisions.touching", lambda ids, places, first, second: first)
    with pytest.raises(ConfigError, match=r"data\.gap: every patch of train touches a test patch"):
        strip_source(strip, tmp_path, folds=3, gap=True)
