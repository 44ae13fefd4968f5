"""The files of a run: a save and its record, what cannot be written or read, metrics and log."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from pretraining import weights
from tiny import tiny_model
from tiny_weights import write_published_checkpoint

from models.moe_mae import MOEMAE
from training import run_folder
from training.run_folder import CSV_COLUMNS, VALIDATION_COLUMNS, RunFolder, record_path, verify
from utils.errors import CheckpointError, UserError
from utils.files import sha256

METRICS, LOG = "training_metrics_XXS.csv", "training_log_XXS.jsonl"


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture(scope="module")
def model() -> MOEMAE:
    return tiny_model(depth=1)


def save(folder: Path, model: MOEMAE, epoch: int) -> None:
    RunFolder(folder, "XXS", False).save(model, {"epoch": epoch}, epoch=epoch, best_train_loss=0.5)


@pytest.fixture(scope="module")
def once(tmp_path_factory, model) -> Path:
    folder = tmp_path_factory.mktemp("once")
    save(folder, model, 1)
    return folder


@pytest.fixture
def run(once, tmp_path) -> Path:
    """A folder that has been saved into once."""
    return shutil.copytree(once, tmp_path / "run")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_have_their_published_names(tmp_path) -> None:
    ours = RunFolder(str(tmp_path), "S", True)
    named = {key: getattr(ours, key).name for key in ("checkpoint", "best", "last", "metrics", "config")}
    assert named == {
        "checkpoint": "checkpoint_S.pth",
        "best": "pretrained_S_best.pth",
        "last": "pretrained_S_last.pth",
        "metrics": "training_metrics_S.csv",
        "config": "config_S.yaml",
    }
    assert (ours.log.name, ours.curve.name, ours.manifest.name, ours.previous.name) == (
        "training_log_S.jsonl", "loss_curve_S.png", "manifest_S.json", "checkpoint_S.prev.pth",
    )  # fmt: skip
    assert ours.checkpoint.parent == tmp_path and ours.columns == CSV_COLUMNS + VALIDATION_COLUMNS
    assert RunFolder(tmp_path, "S", False).columns == CSV_COLUMNS


# --------------------------------------------------------------------------- saving and finding


def test_a_save_has_a_record_of_its_bytes(run, capsys) -> None:
    path = run / "checkpoint_XXS.pth"
    record = json.loads(record_path(path).read_text())
    assert record["sha256"] == sha256(path) and record["bytes"] == path.stat().st_size and record["epoch"] == 1
    newest = RunFolder(run, "XXS", False).newest()
    assert newest is not None and newest[1]["epoch"] == 1 and newest[0].content["epoch"] == 1
    assert newest[0].path == path and capsys.readouterr().out == f"resuming from {path}\n"
    assert RunFolder(run, "S", False).newest() is None, "of another size"


def test_the_one_before_is_kept_as_long_as_it_is_whole(run, model) -> None:
    save(run, model, 2)
    pair = {"checkpoint_XXS.json", "checkpoint_XXS.pth", "checkpoint_XXS.prev.json", "checkpoint_XXS.prev.pth"}
    assert set(names(run)) == pair
    assert json.loads((run / "checkpoint_XXS.prev.json").read_text())["epoch"] == 1
    (run / "checkpoint_XXS.pth").write_bytes(b"damaged")
    save(run, model, 3)
    assert json.loads((run / "checkpoint_XXS.prev.json").read_text())["epoch"] == 1, "not the damaged one"
    assert verify(run / "checkpoint_XXS.prev.pth") is None and verify(run / "checkpoint_XXS.pth") is None


def test_a_disk_that_gives_other_bytes_is_noticed(run, model, monkeypatch) -> None:
    before = (run / "checkpoint_XXS.json").read_bytes()
    monkeypatch.setattr(run_folder, "verify", lambda path: "does not match it")
    with pytest.raises(CheckpointError, match=r"\.pth: does not match it right after writing; check the disk"):
        save(run, model, 2)
    assert (run / "checkpoint_XXS.json").read_bytes() == before and not (run / "checkpoint_XXS.prev.pth").exists()


def test_a_disk_that_fails_between_renames(run, model, monkeypatch) -> None:
    monkeypatch.setattr(run_folder, "sync", refuse)
    with pytest.raises(UserError, match=rf"^cannot write {run / 'checkpoint_XXS.pth'}: "):
        save(run, model, 2)
    monkeypatch.undo()
    newest = RunFolder(run, "XXS", False).newest()
    assert newest is not None and newest[1]["epoch"] == 2


def test_what_is_wrong_with_a_pair(run, monkeypatch) -> None:
    path, record = run / "checkpoint_XXS.pth", run / "checkpoint_XXS.json"
    assert verify(path) is None and verify(run / "checkpoint_XXS.prev.pth") == "is missing"
    whole, bytes_of = record.read_text(), path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert verify(path) == "cannot be read (Input/output error)"
    path.write_bytes(bytes_of[:-1] + bytes([bytes_of[-1] ^ 1]))
    assert verify(path) == "does not match checkpoint_XXS.json"
    path.write_bytes(bytes_of + b"x")
    assert verify(path) == "does not match checkpoint_XXS.json"
    path.write_bytes(bytes_of)
    record.write_text(whole.replace('"epoch": 1', '"epoch": 7'))
    assert verify(path) == "has a damaged checkpoint_XXS.json beside it"
    for text in ("", "[]", "{", "null", '{"bytes": 3}', '{"sha256": "x"}'):
        record.write_text(text)
        assert verify(path) == "has no readable checkpoint_XXS.json beside it", text
    record.unlink()
    assert verify(path) == "has no readable checkpoint_XXS.json beside it"


def test_the_newest_whole_one_is_found_and_others_are_named(run, model, capsys) -> None:
    save(run, model, 2)
    ours = RunFolder(run, "XXS", False)
    ours.checkpoint.write_bytes(b"damaged")
    found = ours.newest()
    assert found is not None and found[1]["epoch"] == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{ours.checkpoint}: does not match checkpoint_XXS.json; looking for another",
        f"resuming from {ours.previous}",
    ]
    ours.previous.unlink()
    with pytest.raises(CheckpointError, match=rf"^{ours.checkpoint}: no checkpoint here verifies; start afresh"):
        ours.newest()
    assert capsys.readouterr().out.count("looking for another") == 1, "one that is not there is not worth a line"
    ours.checkpoint.unlink()
    assert ours.newest() is None


def test_published_runs_cannot_be_resumed(tmp_path) -> None:
    ours = RunFolder(tmp_path, "XXS", False)
    write_published_checkpoint(ours.checkpoint)
    with pytest.raises(CheckpointError, match=r"published code, whose runs cannot be resumed .*model\.checkpoint_path"):
        ours.newest()
    record_path(ours.checkpoint).write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint here verifies"):
        ours.newest()
    record_path(ours.checkpoint).unlink()
    ours.checkpoint.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="no checkpoint here verifies"):
        ours.newest()


# --------------------------------------------------------------------------- afresh


def test_a_new_run_makes_room_for_itself(run, model, capsys) -> None:
    """What is worth keeping is moved, with all that belongs to it; what is not is removed; what is not ours stays."""
    ours, before = RunFolder(run, "XXS", False), weights(run / "checkpoint_XXS.pth")
    RunFolder(run / "new", "XXS", False).start_afresh()
    assert names(run / "new") == [] and capsys.readouterr().out == ""
    (run / "new").rmdir()
    for name in (METRICS, LOG, "config_XXS.yaml", "mine.txt", "checkpoint_S.pth"):
        (run / name).write_text("x")
    ours.start_afresh()
    (moved,) = run.glob("replaced_*")
    assert names(run) == ["checkpoint_S.pth", "mine.txt", moved.name]
    assert names(moved) == ["checkpoint_XXS.json", "checkpoint_XXS.pth", "config_XXS.yaml", LOG, METRICS]
    assert all((weights(moved / "checkpoint_XXS.pth")[name] == value).all() for name, value in before.items())
    assert f"an earlier run was in {run}; moved to {moved} (use --resume" in capsys.readouterr().out
    (run / METRICS).write_text("x")
    ours.start_afresh()
    assert names(run) == ["checkpoint_S.pth", "mine.txt", moved.name] and capsys.readouterr().out == ""
    for name in ("pretrained_XXS_best.pth", "pretrained_XXS_last.pth", "checkpoint_XXS.prev.pth"):
        (run / name).write_text("x")
        ours.start_afresh()
        assert not (run / name).exists() and list(run.glob(f"replaced_*/{name}"))


def test_unfinished_files_of_a_killed_run_go(run) -> None:
    left = [".pretrained_XXS_best.1-2-0.x.tmp.pth", ".checkpoint_XXS.new.json", ".checkpoint_XXS.prev.pth.tmp.link",
            ".checkpoint_XXS.new.1-2-0.y.tmp.json"]  # fmt: skip
    for name in (*left, ".checkpoint_S.1.tmp.pth", ".mine"):
        (run / name).write_text("x")
    RunFolder(run, "XXS", False).settle()
    assert names(run) == [".checkpoint_S.1.tmp.pth", ".mine", "checkpoint_XXS.json", "checkpoint_XXS.pth"]


def test_a_save_that_was_cut_short_is_finished(run, model, tmp_path) -> None:
    """Both new files are there; the record has its place already; the weights have it."""
    later = tmp_path / "later"
    later.mkdir()
    save(later, model, 2)
    for place in ((".new", ".new"), (".new", ""), ("", ".new")):
        folder = shutil.copytree(run, tmp_path / "-".join(place))
        for ending, where in zip((".pth", ".json"), place, strict=True):
            target = folder / f"{'.' if where else ''}checkpoint_XXS{where}{ending}"
            shutil.copy(later / f"checkpoint_XXS{ending}", target)
        ours = RunFolder(folder, "XXS", False)
        ours.settle()
        assert verify(ours.checkpoint) is None and json.loads(record_path(ours.checkpoint).read_text())["epoch"] == 2
        assert not list(folder.glob(".*")) and ours.previous.exists() == (place == (".new", ".new"))


# --------------------------------------------------------------------------- metrics and log


def test_metrics_have_one_header(tmp_path) -> None:
    ours = RunFolder(tmp_path, "XXS", True)
    row = {column: number for number, column in enumerate(ours.columns)} | {"more": "not in the file"}
    for _ in range(2):
        ours.append_metrics(row)
    assert ours.metrics.read_bytes() == f"{','.join(ours.columns)}\n{'0,1,2,3,4,5,6,7' + chr(10)}".encode() + (
        b"0,1,2,3,4,5,6,7\n"
    )
    ours.metrics.write_text("")
    ours.append_metrics(row)
    assert len(ours.metrics.read_text().splitlines()) == 2
    ours.append_log({"a": "é"})
    ours.append_log({"b": 1})
    assert ours.log.read_text() == '{"a": "\\u00e9"}\n{"b": 1}\n'


def test_they_are_cut_back_to_what_a_checkpoint_knows(tmp_path) -> None:
    ours = RunFolder(tmp_path, "XXS", False)
    assert ours.offsets() == {METRICS: 0, LOG: 0}
    ours.cut_to({METRICS: 0, LOG: 0})
    assert names(tmp_path) == []
    for number in range(3):
        ours.append_log({"n": number})
    ours.metrics.write_text("a\nb\n")
    assert ours.offsets() == {METRICS: 4, LOG: 27}
    ours.cut_to({METRICS: 4, LOG: 9})
    assert ours.log.read_text() == '{"n": 0}\n' and ours.metrics.read_text() == "a\nb\n"
    for offsets in ({METRICS: 5, LOG: 9}, {METRICS: 4, LOG: 10}):
        with pytest.raises(CheckpointError, match=r"is shorter than the checkpoint recorded; restore it, or start"):
            ours.cut_to(offsets)
    ours.cut_to({METRICS: 2, LOG: 0})
    assert ours.metrics.read_text() == "a\n" and ours.log.read_text() == ""


@pytest.mark.parametrize("content", ["one line\n", [["a", 1]]])
def test_lines_that_cannot_be_written_are_one_line(tmp_path, monkeypatch, content) -> None:
    """And those that can are on the disk."""
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_size), real(descriptor)))
    run_folder._append(tmp_path / "a", content)
    assert synced == [(tmp_path / "a").stat().st_size] != [0]
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=rf"^cannot write {tmp_path / 'a'}: "):
        run_folder._append(tmp_path / "a", content)


def test_one_process_holds_a_run(tmp_path) -> None:
    ours = RunFolder(tmp_path / "new", "XXS", False)
    with ours.held():
        assert names(tmp_path / "new") == [".held_XXS"]
        with pytest.raises(UserError, match=r"training in it; wait for it, stop it, or give another training\.weight_"):
            with ours.held():
                raise AssertionError("held twice")
    assert names(tmp_path / "new") == []
