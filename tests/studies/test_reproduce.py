"""`reproduce.py`: one command, stages that are done once, stopped anywhere and gone on with, one report."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_python
from conftest import ROOT, SAMPLE
from PIL import Image
from tiny import TINY_MODEL, sample_ids, write_config

from configs.reproduction import ReproductionConfig, read_reproduction_config
from eval.probing.protocols import PROTOCOLS
from models.inference.embedder import Embedder
from models.pooling import POOLINGS
from reproduce import main
from studies import registry
from studies.comparison.reconstruction import opening_section
from studies.engine.context import StudyContext
from studies.engine.data import read_data
from studies.engine.encoders import main_runs
from studies.engine.scoring import difference, interval, score
from studies.engine.stages import StageCache
from studies.report_parts.sections import Section, Value
from studies.report_parts.verdicts import OPEN, side, verdict
from training.stopping import StopSignals
from utils.errors import ConfigError, DataError, UserError
from utils.locks import held_alone

pytestmark = pytest.mark.runs

TABLES = ("reconstruction", "data_knn5", "data_strong_probe", "data_differences", "data_classes", "published")


EPOCHS = 20
"""Of three steps."""


def write_splits(folder: Path) -> dict[str, str]:
    ids = sample_ids(44)
    parts = {"train": ids[:24], "val": ids[24:30], "test": ids[30:]}
    for split, names in parts.items():
        (folder / f"{split}.csv").write_text("\n".join(names) + "\n")
    return {split: str(folder / f"{split}.csv") for split in parts}


def tiny_config(folder: Path, **changes: object) -> Path:
    """A reproduction of a few seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "out_dir": str(folder / "out"),
        "model": TINY_MODEL,
        "training": {"epochs": EPOCHS, "batch_size": 8, "learning_rate": 1e-3},
        "data": {"dataset_path": str(SAMPLE), "splits": write_splits(folder)},
        "embed": {"pools": ["mean"]},
        "protocols": ["knn5", "strong_probe"],
        "bootstrap": {"draws": 100},
        "studies": [],
        **changes,
    }
    return write_config(folder / "reproduce.yaml", **values)


def read(path: Path, *overrides: str) -> ReproductionConfig:
    return read_reproduction_config(str(path), list(overrides), ("pooling",), tuple(PROTOCOLS))


def context_of(config: ReproductionConfig) -> StudyContext:
    return StudyContext.prepare(config, StageCache(config.out_dir, report=lambda text: None), StopSignals())


def tables(folder: Path) -> dict[str, str]:
    return {name: (folder / "out" / "tables" / f"{name}.csv").read_text() for name in TABLES}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with a finished reproduction."""
    folder = tmp_path_factory.mktemp("done")
    assert main(["--config_yaml", str(tiny_config(folder))]) == 0
    return folder


# --------------------------------------------------------------------------- the whole command


def test_the_report_holds_the_main_run(done: Path) -> None:
    out = done / "out"
    assert (out / "report.html").stat().st_size > 50_000
    found = json.loads((out / "report.json").read_text())
    titles = [section["title"] for section in found["sections"]]
    assert titles[:3] == ["What was found", "Reconstruction", "Probes on simulated BigEarthNet-Landsat patches"]
    assert titles[3] == "Comparison with published results"
    assert titles[-2:] == ["What these data support", "What was run"], "claims after the pictures"
    _, simulated, finding = found["sections"][0]["text"]
    assert "nothing about the Earth" in simulated
    assert finding.startswith("This model, mean of tokens, on 14 simulated BigEarthNet-Landsat patches: micro mAP ")
    assert "The strongest representation without training (" in finding and finding.endswith(".")
    rows = {row[0]: row for section in found["sections"] for table in section["tables"]
            if table["name"] == "data_strong_probe" for row in table["rows"]}  # fmt: skip
    assert list(rows) == [
        "class prior", "image statistics", "metadata", "statistics + metadata", "random features",
        "random features + statistics + metadata", "random features + statistics + metadata + products",
        "PCA of patches", "untrained encoder, mean of tokens", "this model, mean of tokens",
    ]  # fmt: skip
    assert rows["statistics + metadata"][1] == 36
    assert rows["random features + statistics + metadata"][1] == 512 + 36
    assert all(row[2]["low"] <= row[2]["high"] for row in rows.values())
    assert all("simulated" in table["measured_on"] or table["name"] in ("published", "claims")
               for section in found["sections"] for table in section["tables"])  # fmt: skip
    assert found["config"]["training"]["epochs"] == EPOCHS
    text = " ".join(paragraph for section in found["sections"] for paragraph in section["text"])
    assert "no satellite took" in text and "One pretraining seed" in text
    claims = {row[0]: row for row in found["sections"][-2]["tables"][0]["rows"]}
    beaten = claims["an encoder reconstructs better than the visible mean of each image"]
    assert not beaten[1].startswith("supported") and beaten[2]["low"] <= 0, "so short a run beats nothing"
    assert claims["pretraining helps"][2]["low"] < claims["pretraining helps"][2]["high"]
    assert all(row[1].endswith("single pretraining run") for row in claims.values())
    assert "claims are supported by these data" in text and "one in twenty" in text
    assert "somewhat too narrow" in text and "14 simulated BigEarthNet-Landsat patches (" in text


def test_the_report_opens_with_what_given_weights_reconstruct(done: Path, tmp_path) -> None:
    """Weights that are not there open nothing; of several the first that is there counts."""
    weights = next((done / "out" / "stages").rglob("pretrained_XXS_best.pth"))
    for given, named in (
        ({"a": tmp_path / "absent.pth"}, None),
        ({"a": tmp_path / "absent.pth", "b_c": weights}, "b c"),
    ):
        checkpoints = {name: str(path) for name, path in given.items()}
        context = context_of(read(tiny_config(tmp_path, checkpoints=checkpoints)))
        section = opening_section(context)
        assert (section is None) == (named is None)
        if section is not None:
            assert section.title == f"Reconstructions by the {named} weights"
            (figure,) = section.figures
            with Image.open(figure.path) as picture:
                assert min(picture.size) > 500
            assert [stage.name for stage in context.cache.stages] == ["reconstruction/given_b_c/panels"]


def test_losses_are_those_of_the_evaluation_script(done: Path, capsys) -> None:
    from eval_mae import main as evaluate

    run = done / "out" / "stages" / "pretrain" / "main" / "seed0" / "run" / "pretrained_XXS_best.pth"
    config = write_config(
        done / "eval.yaml",
        model={"checkpoint_path": str(run), "device": "cpu"},
        data={"dataset_path": str(SAMPLE), "dataset_csv": str(done / "test.csv")},
        eval={"reconstructions_dir": str(done / "eval"), "save_reconstructions_masked": False,
              "save_reconstructions_full": False},
    )  # fmt: skip
    assert evaluate(["--config_yaml", str(config)]) == 0
    metrics = json.loads((done / "eval" / "metrics.json").read_text())
    lines = [line.split(",") for line in tables(done)["reconstruction"].splitlines()]
    losses = {line[0]: float(line[1]) for line in lines[1:]}
    assert losses["this model"] == pytest.approx(metrics["masked_loss"], rel=1e-5)
    for title, name in (("mean of the dataset", "dataset_mean"), ("visible mean of each image", "visible_mean"),
                        ("interpolation of the visible patches", "interpolation")):  # fmt: skip
        assert losses[title] == pytest.approx(metrics["baselines"][name]["masked_loss"], rel=1e-5)


def test_the_same_inputs_are_not_worked_on_again(done: Path, capsys) -> None:
    before = tables(done)
    assert main(["--config_yaml", str(done / "reproduce.yaml")]) == 0
    assert "pretraining size" not in capsys.readouterr().out
    found = json.loads((done / "out" / "report.json").read_text())
    assert all(stage["reused"] for stage in found["stages"])
    assert tables(done) == before


def test_another_input_redoes_what_depends_on_it(done: Path, tmp_path) -> None:
    shutil.copytree(done, tmp_path / "copy")
    config = tiny_config(tmp_path / "copy")
    assert main(["--config_yaml", str(config), "--set", "bootstrap.draws=120"]) == 0
    found = json.loads((tmp_path / "copy" / "out" / "report.json").read_text())
    again = {stage["name"].partition("/")[0] for stage in found["stages"] if not stage["reused"]}
    assert again == {"reconstruction", "intervals", "class_intervals", "figures"}


def test_a_study_is_asked_for_by_name_and_has_a_mark(done: Path, tmp_path, monkeypatch) -> None:
    shutil.copytree(done, tmp_path / "copy")
    monkeypatch.setitem(
        registry.STUDIES, "pooling", lambda context: Section("Pooling", [str(context.study_overrides)], passed=True)
    )
    config = tiny_config(tmp_path / "copy", studies=["pooling"], study={"training": {"epochs": 2}})
    assert main(["--config_yaml", str(config)]) == 0
    found = json.loads((tmp_path / "copy" / "out" / "report.json").read_text())
    assert found["sections"][-3] == {"title": "Pooling", "text": ["{'training.epochs': 2}"], "passed": True,
                                     "tables": [], "figures": []}  # fmt: skip


def test_a_third_dataset_is_probed_too(done: Path, tmp_path) -> None:
    shutil.copytree(done, tmp_path / "copy")
    random = np.random.default_rng(0)
    for number, name in enumerate(("field", "water", "town")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(60 * number, 60 * number + 100, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    other = {"dataset": "labelled_folder", "dataset_path": str(tmp_path / "photos"),
             "splits": {"train": "0-60%", "test": "60-100%"}}  # fmt: skip
    assert main(["--config_yaml", str(tiny_config(tmp_path / "copy", other=other))]) == 0
    found = json.loads((tmp_path / "copy" / "out" / "report.json").read_text())
    section = next(one for one in found["sections"] if one["title"] == "Probes on labelled images in photos")
    assert "SR_B1" in section["text"][0] and "filled with the mean" in section["text"][0]
    rows = {row[0]: row for row in section["tables"][1]["rows"]}
    assert "metadata" not in rows and rows["image statistics"][2]["value"] > 60
    assert section["tables"][1]["measured_on"] == "12 labelled images in photos, trained on 18 others"


def test_two_at_once_are_refused(done: Path) -> None:
    with held_alone(done / "out", "at work"), pytest.raises(UserError, match="another process is at work"):
        main(["--config_yaml", str(done / "reproduce.yaml")])


# --------------------------------------------------------------------------- stopped and gone on with


def start_and_stop(config: Path, reached: Callable[[], bool], number: int) -> warm_python.Process:
    """Start the command, send it a signal once it has got to a point, and wait for its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = warm_python.start(["reproduce.py", "--config_yaml", config], cwd=ROOT, env=environment)
    limit = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    assert process.poll() is None, f"ended before it was stopped: {process.stdout}"
    process.send_signal(number)
    process.wait(60)
    return process


@pytest.mark.slow
@pytest.mark.faults
def test_killed_anywhere_it_goes_on_to_the_same_numbers(done: Path, tmp_path) -> None:
    config = tiny_config(tmp_path)
    out = tmp_path / "out"
    log = out / "stages/pretrain/main/seed0/run/training_log_XXS.jsonl"

    def epochs() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    start_and_stop(config, lambda: epochs() >= 2, signal.SIGKILL)
    assert 2 <= epochs() < EPOCHS
    stopped = start_and_stop(config, lambda: epochs() >= 5, signal.SIGTERM)
    assert stopped.returncode == 0
    assert "the same command goes on from here" in stopped.stdout
    assert epochs() < EPOCHS
    start_and_stop(config, lambda: any(out.glob("stages/score/data/*/all/knn5/stage.json")), signal.SIGKILL)
    assert not (out / "report.html").exists()
    assert epochs() == EPOCHS, "finished, and not begun again"
    assert main(["--config_yaml", str(config)]) == 0
    assert tables(tmp_path) == tables(done)


@pytest.mark.faults
def test_a_stage_that_was_stopped_finds_its_files_again(tmp_path) -> None:
    seen = []

    def work(folder: Path) -> int:
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / f"part{len(seen)}").write_text("x")
        if len(seen) == 1:
            raise KeyboardInterrupt
        return len(seen)

    with pytest.raises(KeyboardInterrupt):
        StageCache(tmp_path).stage("a/b", {"n": 1}, work)
    stage = StageCache(tmp_path).stage("a/b", {"n": 1}, work)
    assert seen == [["inputs.json"], ["inputs.json", "part1"]]
    assert (stage.result, stage.reused) == (2, False)
    again = StageCache(tmp_path).stage("a/b", {"n": 1}, work)
    assert (again.result, again.reused, again.digest) == (2, True, stage.digest)
    (tmp_path / "stages/a/b/part1").unlink()  # a finished stage that has lost a file begins anew
    assert StageCache(tmp_path).stage("a/b", {"n": 1}, work).result == 3
    assert StageCache(tmp_path).stage("a/b", {"n": 2}, work).result == 4
    assert seen[2:] == [["inputs.json"], ["inputs.json"]]


def test_two_stages_of_one_name_are_a_mistake(tmp_path) -> None:
    cache = StageCache(tmp_path, report=lambda text: None)
    first = cache.stage("a", {"n": 1}, lambda folder: 1)
    assert cache.stage("a", {"n": 1}, lambda folder: 2) is first
    with pytest.raises(ValueError, match="two stages are called a"):
        cache.stage("a", {"n": 2}, lambda folder: 2)


# --------------------------------------------------------------------------- the config


def test_all_problems_at_once(tmp_path) -> None:
    path = tiny_config(
        tmp_path,
        studies=["poling"],
        protocols=["knn"],
        pretraining_seeds=[1, 1],
        training={"epochs": 0, "seed": 3},
        eurosat={"dataset": "eurosat_ls", "dataset_path": "x", "simulate": {"patches": 9}, "folds": 3},
        other={"dataset": "labelled_folder"},
        study={"training": {"weight_path": "x"}, "data": {"dataset_path": "x", "splits": {"all": "x"}}},
        embedd={},
    )
    with pytest.raises(ConfigError) as found:
        read(path, "data.foldz=5", "model.embed_dim=25")
    text = str(found.value)
    for part in (
        "studies: knows no 'poling'; there are pooling", "protocols: knows no 'knn'", "training.epochs: should be",
        "pretraining_seeds: holds 1 more than once", "training.seed: is set by reproduce.py itself",
        "study.training.weight_path: is set",
        "eurosat.dataset_path: and eurosat.simulate are both given", "eurosat.folds: are cut by area",
        "other.dataset_path: and other.simulate are both missing", "study.data.splits: needs train and test",
        "embedd: unknown key; did you mean embed?", "data.foldz: unknown key; did you mean data.folds?",
        "model.embed_dim: 25 is not a multiple",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize("name", ["paper", "sample", "real_sample"])
def test_the_configs_are_valid(name: str) -> None:
    path = ROOT / "configs" / f"reproduce_{name}.yaml"
    config = read_reproduction_config(str(path), [], tuple(registry.STUDIES), tuple(PROTOCOLS))
    assert config.studies == "all"


def test_the_commands_in_the_configs_can_be_read() -> None:
    """The overrides that the paper's config names for a simulated run are accepted."""
    lines = (ROOT / "configs" / "reproduce_paper.yaml").read_text().splitlines()
    words = " ".join(line.lstrip("# ").rstrip("\\ ") for line in lines if line.startswith("#")).split()
    overrides = [words[i + 1].strip("'") for i, word in enumerate(words) if word == "--set"]
    assert "data.dataset_path=null" in overrides
    config = read_reproduction_config(
        str(ROOT / "configs" / "reproduce_paper.yaml"), overrides, tuple(registry.STUDIES), tuple(PROTOCOLS)
    )
    assert config.data.simulate.patches >= 100 and set(config.studies) < set(registry.STUDIES)


# --------------------------------------------------------------------------- the data


def test_folds_test_every_patch_once_and_keep_areas_whole(tmp_path) -> None:
    data = {"simulate": {"patches": 60, "seed": 4}, "folds": 3}
    config = read(tiny_config(tmp_path, data=data))
    source = read_data(config, StageCache(tmp_path / "out", report=lambda text: None)).main
    assert len(source.folds) == 3 and source.simulated
    fold_of = {name: fold for fold in range(3) for name in source.dataset("test", fold=fold).ids}
    blocks = source.blocks(list(fold_of))
    assert len(set(zip(blocks, fold_of.values(), strict=True))) == len(set(blocks)), "a block lies in one fold"
    tested = [name for fold in range(3) for name in source.dataset("test", fold=fold).ids]
    assert len(tested) == len(set(tested)) == 60
    for fold in range(3):
        parts = {split: set(source.dataset(split, fold=fold).ids) for split in ("train", "val", "test")}
        assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == 60
        assert min(map(len, parts.values())) > 5
    assert "3 folds of whole areas" in source.measured_on()


def test_a_pack_gives_the_same_vectors_as_the_files(tmp_path) -> None:
    found = []
    for name, pack in (("files", False), ("pack", True)):
        path = tiny_config(tmp_path / name)
        context = context_of(read(path, f"data.pack={str(pack).lower()}"))
        assert (Path(context.data.main.path) / "pixels.npy").exists() == pack
        found.append(context.runs.embeddings(context.runs.untrained(), "cls", "test").vectors)
    assert np.array_equal(found[0].x, found[1].x) and list(found[0].ids) == list(found[1].ids)


def test_the_studies_data_are_made_for_studies_only(tmp_path) -> None:
    path = tiny_config(tmp_path, study={"data": {"simulate": {"patches": 12}}})
    found = [read_data(read(path, f"studies={names}"), StageCache(tmp_path / "out", report=lambda text: None))
             for names in ("[]", "[pooling]")]  # fmt: skip
    assert found[0].study is found[0].main
    assert found[1].study.key == "study" and found[1].study.simulated
    assert sum(map(found[1].study.count, ("train", "val", "test"))) == 12


def test_split_by_area(tmp_path) -> None:
    config = read(tiny_config(tmp_path), "data.split_by=area", "data.shares={train: 2, test: 1}")
    source = read_data(config, StageCache(tmp_path / "out", report=lambda text: None)).main
    train, test = (set(source.dataset(split).ids) for split in ("train", "test"))
    assert len(train | test) == 44 and not train & test
    assert len(train) > len(test)
    assert "areas kept on one side" in source.measured_on()


def test_real_patches_are_cross_validated(real_patches: Path, tmp_path) -> None:
    path = ROOT / "configs" / "reproduce_real_sample.yaml"
    config = read(path, f"data.dataset_path={real_patches}", f"out_dir={tmp_path}", "studies=[]")
    source = read_data(config, StageCache(tmp_path, report=lambda text: None)).main
    assert source.count("test") == 119 and not source.simulated
    assert source.measured_on().startswith("119 real BigEarthNet-Landsat patches, each tested once")
    with pytest.raises(DataError, match="no label file"):
        strict = config.model_copy(update={"data": config.data.model_copy(update={"missing_labels": "error"})})
        read_data(strict, StageCache(tmp_path / "strict", report=lambda text: None)).main.count("test")


# --------------------------------------------------------------------------- vectors and scores


@pytest.fixture(scope="module")
def context(done: Path) -> StudyContext:
    return context_of(read(done / "reproduce.yaml"))


@pytest.mark.parametrize("pool", POOLINGS)
def test_pools_are_those_of_the_embedder(context: StudyContext, pool: str) -> None:
    run = main_runs(context)[0]
    batch = next(context.data.main.loader("test", torch.device("cpu")).batches())
    expected = Embedder(context.runs.model(run), pool)(batch.images, batch.meta)
    found = context.runs.embeddings(run, pool, "test").vectors
    assert list(found.ids) == batch.ids
    np.testing.assert_allclose(found.x, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.array_equal(found.y, batch.labels.numpy())


def test_metadata_and_noise_as_asked(context: StudyContext) -> None:
    run = main_runs(context)[0]
    batch = next(context.data.main.loader("test", torch.device("cpu")).batches())
    given, missing, shuffled = (context.runs.embeddings(run, "cls", "test", metadata=how).vectors.x
                                for how in ("given", "missing", "shuffled"))  # fmt: skip
    expected = Embedder(context.runs.model(run), "cls")(batch.images, None)
    np.testing.assert_allclose(missing, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(given, shuffled) and not np.allclose(given, missing)
    noisy = [context.runs.embeddings(run, "cls", "test", noise=seed).vectors.x for seed in (0, 1, 0)]
    assert not np.allclose(noisy[0], noisy[1]) and not np.allclose(noisy[0], given)
    assert np.array_equal(noisy[0], noisy[2])
    pairs = context.runs.embeddings(run, "meta_cls", "test").vectors.x
    assert np.array_equal(pairs[:, -given.shape[1] :], given)


def test_a_representation_differs_from_itself_by_nothing(context: StudyContext) -> None:
    run = main_runs(context)[0]
    one = score(context, "itself", "knn5", lambda split, fold: context.runs.embeddings(run, "cls", split, fold=fold))
    value = interval(context, one, "map_micro")
    assert value.value == pytest.approx(100 * one.metrics["map_micro"])
    assert value.low < value.value < value.high or value.low <= value.high
    same = difference(context, one, one, "map_micro")
    assert (same.value, same.low, same.high) == (0, 0, 0) and side(same) == OPEN
    assert difference(context, [one, one], one, "map_micro").value == 0
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(context, [one, one], [one, one, one], "map_micro")


def test_verdicts() -> None:
    up, down, open_ = Value(2, 1, 3), Value(-2, -3, -1), Value(1, -1, 3)
    assert verdict([up, up]) == "supported"
    assert verdict([up, open_]) == "partly supported: significant by 1 of 2 protocols"
    assert verdict([open_, open_]) == "not significant (95 % CI includes 0), by every protocol"
    assert verdict([down, open_]) == "partly contradicted: significant by 1 of 2 protocols"
    assert verdict([up, down]).startswith("mixed")
    assert verdict([open_]) == "not significant (95 % CI includes 0)"
    assert verdict([down]) == "contradicted"
    assert verdict([None, Value(1)]) == verdict([None], runs=1) == "undetermined: no confidence interval"
    assert verdict([up], runs=1) == "supported; single pretraining run" and verdict([up], runs=2) == "supported"
