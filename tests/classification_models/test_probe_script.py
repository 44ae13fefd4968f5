"""The probe's script and the embedding files it reads, with bad input."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import warm_python
from conftest import ROOT
from probe_data import make_data, write_npz

import train_logistic_regression as script
from classification_models import embeddings as embeddings_module
from classification_models.embeddings import read_embeddings, resolve_labels, select_features
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.probe_files import new_run
from utils.errors import DataError, UserError

PUBLISHED_KEYS = [
    "run_id", "train_npz", "val_npz", "x_shape_train", "y_shape_train", "x_shape_val", "y_shape_val", "multilabel",
    "feature_slice", "n_jobs", "metrics", "version", "timestamp",
]  # fmt: skip


def test_runs_in_the_same_second_do_not_meet_and_a_failed_one_leaves_nothing(tmp_path):
    with new_run(tmp_path, "probe") as first:
        first.json.write_text("{}")
        with new_run(tmp_path, "probe") as second:
            second.json.write_text("{}")
    with new_run(tmp_path, "probe") as third:
        third.json.write_text("{}")
    assert len({first.json, second.json, third.json}) == 3
    with pytest.raises(RuntimeError), new_run(tmp_path, "failed") as files:
        files.joblib.write_text("half")
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f.json.name for f in (first, second, third))


# --- reading embeddings ----------------------------------------------------------------------------------------------


def test_stored_features_are_mapped_and_compressed_ones_read(tmp_path):
    x, y, _ = make_data()
    mapped = read_embeddings(write_npz(tmp_path / "stored.npz", x, y))
    np.savez_compressed(tmp_path / "packed.npz", x_test=x, y_test=y)
    packed = read_embeddings(tmp_path / "packed.npz")
    assert isinstance(mapped.x, np.memmap) and packed.ids is None
    for read in (mapped, packed):
        np.testing.assert_array_equal(read.x, x)
        np.testing.assert_array_equal(read.y, y)


def test_pooling_and_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings_module, "CHUNK_BYTES", 500)
    tokens = np.random.default_rng(0).normal(size=(20, 5, 4)).astype(np.float32)
    y = np.arange(20) % 3
    flat = tokens.reshape(20, 20)
    described = read_embeddings(write_npz(tmp_path / "a.npz", flat, y, {"pool": "all", "tokens": 5, "width": 4}))
    np.testing.assert_allclose(select_features(described, pool=True), tokens.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(select_features(described, columns=slice(4, 8)), tokens[:, 1])
    cubic = read_embeddings(write_npz(tmp_path / "b.npz", tokens, y))
    np.testing.assert_allclose(select_features(cubic, pool=True), tokens.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(select_features(cubic), flat)
    wide = np.random.default_rng(0).normal(size=(3, 15_120)).astype(np.float32)
    published = read_embeddings(write_npz(tmp_path / "c.npz", wide, y[:3]))
    np.testing.assert_allclose(select_features(published, pool=True), wide.reshape(3, 105, 144).mean(1), atol=1e-6)


def test_label_kinds(tmp_path):
    x, multi_hot, y = make_data()
    multi_hot[0] = [1, 1, 0, 0]
    one_hot = np.eye(4, dtype=np.float32)[y]
    many = read_embeddings(write_npz(tmp_path / "many.npz", x, multi_hot))
    assert resolve_labels(many, None).multilabel and resolve_labels(many, True).multilabel
    single = read_embeddings(write_npz(tmp_path / "single.npz", x, one_hot))
    for flag in (None, False):
        labels = resolve_labels(single, flag)
        assert not labels.multilabel
        np.testing.assert_array_equal(labels.y, y)
    assert resolve_labels(single, True).multilabel
    known = read_embeddings(write_npz(tmp_path / "known.npz", x, one_hot, {"multilabel": True}))
    assert resolve_labels(known, None).multilabel


# --- the script ------------------------------------------------------------------------------------------------------


@pytest.fixture
def multilabel_files(tmp_path):
    """Three splits of a multilabel problem with names; label "snow" has no positive in training."""
    provenance = {"checkpoint": {"path": "a.pth", "sha256": "0" * 64}, "pool": "cls", "dataset": "bigearthnet_ls"}
    provenance["classes"] = ["forest", "water", "snow", "town"]
    files = []
    for seed, split in enumerate(("train", "val", "test")):
        x, y, _ = make_data(seed=seed)
        if split == "train":
            y[:, 2] = 0
        files += [f"--{split}", str(write_npz(tmp_path / f"b_{split}.npz", x, y, provenance, split))]
    return files


def run_record(out: Path) -> tuple[dict, Path]:
    (path,) = out.glob("*.json")
    return json.loads(path.read_text()), path


def test_script_writes_all_files_and_names_the_constant_label(tmp_path, multilabel_files, capsys, caplog):
    out = tmp_path / "out"
    assert script.main([*multilabel_files, "--out", str(out), "--name", "probe", "--n-jobs", "2"]) == 0
    record, path = run_record(out)
    assert set(PUBLISHED_KEYS) <= set(record) and record["run_id"] == record["timestamp"]
    assert path.name == f"probe_{record['run_id']}.json"
    assert sorted(p.name for p in out.iterdir()) == sorted(record["files"].values())
    assert record["multilabel"] is True and record["x_shape_test"] == [300, 6] and record["converged"] is True
    assert record["constant_labels"] == ["snow"] and "no positive for snow" in caplog.text
    assert record["metrics"]["test"]["left_out"]["constant_in_train"] == ["snow"]
    assert 0.5 < record["metrics"]["test"]["map_micro"] < 1
    assert record["embeddings"]["train"]["checkpoint"]["sha256"] == "0" * 64
    printed = capsys.readouterr().out
    assert "mAP micro" in printed and "forest" in printed and path.name in printed
    probe = LogisticRegressionModel.load(path.with_suffix(".npz"))
    with np.load(multilabel_files[5]) as file:
        accuracy = (probe.predict(file["x_test"]) == file["y_test"]).all(axis=1).mean()
    assert record["metrics"]["test"]["exact_match"] == pytest.approx(accuracy)


def test_script_reports_what_the_large_solver_did(tmp_path, multilabel_files, capsys):
    out = tmp_path / "out"
    arguments = ["--solver", "preconditioned-lbfgs", "--device", "cpu", "--scale", "true"]
    assert script.main([*multilabel_files, "--out", str(out), *arguments]) == 0
    record, path = run_record(out)
    assert record["solver"] == "preconditioned-lbfgs" and record["device"] == "cpu" and record["converged"] is True
    for key in ("n_iter", "gradient", "objective", "gap"):
        assert len(record[key]) == 4
    assert record["constant_labels"] == ["snow"] and record["memory_bytes"] > 0 and record["seconds"] > 0
    assert "preconditioned-lbfgs on cpu, converged" in capsys.readouterr().out
    newton = tmp_path / "newton"
    script.main([*multilabel_files, "--out", str(newton), "--scale", "true", "--solver", "newton-cholesky"])
    np.testing.assert_allclose(record["objective"], run_record(newton)[0]["objective"], rtol=1e-6)
    assert LogisticRegressionModel.load(path.with_suffix(".npz")).report["objective"] == record["objective"]


def test_script_on_published_one_hot_files_with_a_slice(tmp_path, capsys):
    x, _, y = make_data(width=12)
    one_hot = np.eye(4, dtype=np.float32)[y]
    for name in ("train", "val"):
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=one_hot)
    arguments = ["--train", str(tmp_path / "train.npz"), "--val", str(tmp_path / "val.npz")]
    script.main([*arguments, "--out", str(tmp_path / "out"), "--feature-slice", "0:6", "--scale", "true", "--C", "0.1"])
    record, _ = run_record(tmp_path / "out")
    assert record["x_shape_train"] == [300, 6] and record["y_shape_train"] == [300]
    assert record["feature_slice"] == "0:6" and record["multilabel"] is False and record["test_npz"] is None
    assert record["metrics"]["val"]["accuracy"] > 0.4
    assert "one-hot multiclass" in capsys.readouterr().out


def test_script_without_anything_to_score_keeps_metrics_empty(tmp_path, multilabel_files):
    script.main([*multilabel_files[:2], "--out", str(tmp_path / "out")])
    record, _ = run_record(tmp_path / "out")
    assert record["metrics"] == {} and record["val_npz"] is None and not list((tmp_path / "out").glob("*.png"))


def test_script_scores_a_class_that_training_lacks_as_never_found(tmp_path, caplog):
    for seed, split in enumerate(("train", "test")):
        x, _, y = make_data(seed=seed)
        keep = y != 1 if split == "train" else np.ones(len(y), bool)
        write_npz(tmp_path / f"{split}.npz", x[keep], y[keep], {"classes": list("abcd"), "pool": "cls"}, split)
    arguments = ["--train", str(tmp_path / "train.npz"), "--test", str(tmp_path / "test.npz")]
    script.main([*arguments, "--out", str(tmp_path / "out")])
    record, _ = run_record(tmp_path / "out")
    assert record["constant_labels"] == ["b"] and "no positive for b" in caplog.text
    assert record["metrics"]["test"]["per_class"][1]["recall"] == 0


# --- bad input -------------------------------------------------------------------------------------------------------


def corrupt(path: Path, how: str) -> list[str]:
    """Spoil the training file in one way; returns further arguments that bring the fault out."""
    x, y, index = make_data()
    x[7, 3] = np.nan if how == "nan" else np.inf if how == "infinity" else x[7, 3]
    y[0] = [1, 1, 0, 0]
    if how == "absent":
        path.unlink()
    elif how == "not a zip":
        path.write_bytes(pickle.dumps({"x": 1}))
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "no x":
        np.savez(path, y_train=y)
    elif how == "two x":
        write_npz(path, x, y, x_val=x)
    elif how == "objects":
        write_npz(path, x.astype(object), y)
    elif how == "object ids":
        write_npz(path, x, y, ids=np.array([None] * 300))
    elif how == "empty":
        write_npz(path, x[:0], y[:0])
    elif how == "rows":
        write_npz(path, x, y[:-1])
    elif how == "rows of ids":
        write_npz(path, x, y, ids=np.array(["a"]))
    elif how == "text features":
        write_npz(path, x.astype(str), y)
    elif how in ("nan", "infinity"):
        write_npz(path, x, y)
    elif how == "multi-hot values":
        write_npz(path, x, y * 2)
    elif how == "negative index":
        write_npz(path, x, index - 1)
    elif how == "multilabel asked of indices":
        write_npz(path, x, index)
        return ["--multilabel", "true"]
    elif how == "multiclass asked of multi-hot":
        write_npz(path, x, y)
        return ["--multilabel", "false"]
    elif how == "no positives":
        write_npz(path, x, y * 0)
    elif how == "one class":
        path.with_suffix(".json").unlink()
        write_npz(path, x, index * 0)
    elif how == "bad json":
        path.with_suffix(".json").write_text("{")
    elif how == "class names":
        path.with_suffix(".json").write_text('{"classes": ["a"]}')
    elif how == "flipped header":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00garbage")
            archive.writestr("y_train.npy", b"")
    return []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "no such file"),
        ("not a zip", "not a readable .npz"),
        ("truncated", "not a readable .npz"),
        ("flipped header", "not a readable .npz"),
        ("no x", "exactly one array named x_"),
        ("two x", "exactly one array named x_"),
        ("objects", "holds Python objects"),
        ("object ids", "holds Python objects"),
        ("empty", "empty"),
        ("rows", "differ in their number of rows"),
        ("rows of ids", "differ in their number of rows"),
        ("text features", "expected real numbers"),
        ("nan", "NaN or infinity"),
        ("infinity", "NaN or infinity"),
        ("multi-hot values", "zeros and ones"),
        ("negative index", "class indices"),
        ("multilabel asked of indices", "holds class indices"),
        ("multiclass asked of multi-hot", "row 0 of y has 2 labels"),
        ("no positives", "no label has a single positive"),
        ("one class", "only class 0"),
        ("bad json", "not readable JSON"),
        ("class names", "1 names"),
    ],
)
def test_bad_training_file_is_one_line_and_writes_nothing(tmp_path, multilabel_files, how, message):
    extra = corrupt(Path(multilabel_files[1]), how)
    with pytest.raises(DataError) as caught:
        script.main([*multilabel_files[:2], "--out", str(tmp_path / "out"), *extra])
    text = str(caught.value)
    assert message in text and "\n" not in text
    assert "b_train" in text or how in ("no positives", "one class")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("width", "5 features"),
        ("labels", "label columns"),
        ("kind", "class indices"),
        ("checkpoint", "another checkpoint"),
        ("pool", "another pool"),
    ],
)
def test_splits_that_do_not_fit_together(tmp_path, multilabel_files, how, message):
    path = Path(multilabel_files[3])
    x, y, index = make_data(seed=1)
    provenance = json.loads(path.with_suffix(".json").read_text())
    if how == "width":
        x = x[:, :5]
    elif how == "labels":
        y = y[:, :3]
    elif how == "kind":
        y = index
    elif how == "checkpoint":
        provenance["checkpoint"]["sha256"] = "1" * 64
    elif how == "pool":
        provenance["pool"] = "mean"
    write_npz(path, x, y, provenance, "val")
    with pytest.raises(DataError, match=message) as caught:
        script.main([*multilabel_files, "--out", str(tmp_path / "out")])
    assert "b_val.npz" in str(caught.value)


def test_scoring_on_training_patches_is_warned_of(tmp_path, multilabel_files, caplog):
    script.main([*multilabel_files[:2], "--test", multilabel_files[1], "--out", str(tmp_path / "out")])
    assert "300 ids are fitted on, too" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--multilabel", "maybe"], "--multilabel: expected true or false"),
        (["--pool", "1"], "--pool: expected true or false"),
        (["--feature-slice", "5"], "--feature-slice: expected A:B"),
        (["--feature-slice", "4:4"], "--feature-slice: expected A:B"),
        (["--feature-slice", "-3:4"], "--feature-slice"),
        (["--feature-slice", "2:99"], "outside its 0:6"),
        (["--feature-slice", "0:3", "--pool", "true"], "exclude each other"),
        (["--pool", "true"], "already pooled (cls)"),
        (["--n-jobs", "0"], "n_jobs"),
        (["--C", "-1"], "C must be"),
        (["--C", "nan"], "C must be"),
        (["--max-iter", "0"], "max_iter"),
        (["--seed", "-1"], "--seed"),
        (["--solver", "adam"], "--solver"),
        (["--device", "mps"], "device must be"),
        (["--device", "cuda", "--solver", "sag"], "runs on the CPU only"),
        (["--name", "../x"], "--name"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, multilabel_files, arguments, message):
    with pytest.raises(UserError) as caught:
        script.main([*multilabel_files[:2], "--out", str(tmp_path / "out"), *arguments])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [(None, "105 x 144 tokens of the published layout"), ({"pool": "all", "tokens": 4, "width": 2}, "4 x 2 tokens")],
)
def test_pooling_needs_to_know_the_tokens(tmp_path, provenance, message):
    x, y, _ = make_data()
    read = read_embeddings(write_npz(tmp_path / "a.npz", x, y, provenance))
    with pytest.raises(DataError, match=message):
        select_features(read, pool=True)


def test_exit_code_and_one_line_on_stderr(tmp_path):
    command = ["train_logistic_regression.py", "--train", "absent.npz", "--out", tmp_path]
    done = warm_python.run(command, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: absent.npz: no such file") and done.stderr.count("\n") == 1
