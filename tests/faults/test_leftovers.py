"""What killed runs leave unfinished goes with the next run in the folder, and nothing that somebody is at work on."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from faults import Attempt
from file_calls import KILLED, SAVED, Fault, faults_of, forked
from open_files import open_files
from tiny import SAMPLE, write_config
from tiny_weights import checkpoint  # noqa: F401

from classification_models.probe_files import new_run
from embed.compute_embed import main as embed
from release.folder import atomic_folder
from scenes.outputs import OutputSet
from scenes.row_store import RowStore
from studies.engine.stages import StageCache
from utils.files import atomic_path, check_writable, replaced_folder, write_json, write_text
from utils.owners import Owner, this_process
from utils.temporary import RESERVED, remove_leftovers, temporary_file, temporary_folder


def killed(work, folder: Path) -> None:
    """The work is killed within its first write beyond a hundred bytes."""
    assert forked(work, folder, Fault(most_bytes=100, kill=True)).code == KILLED
    assert list(folder.rglob(".*.tmp*"))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


def test_the_next_run_in_the_folder(tmp_path, capsys) -> None:
    for name in ("rows.rows", "a name, with dots.v1.json", "nothing"):
        killed(lambda name=name: write_text(tmp_path / name, "x" * 500), tmp_path)
    check_writable(tmp_path)
    assert not left(tmp_path)
    assert "removed 3 unfinished of runs that were killed (300 bytes)" in capsys.readouterr().out
    check_writable(tmp_path)
    assert "removed" not in capsys.readouterr().out


def test_files_that_somebody_is_at_work_on(tmp_path) -> None:
    with atomic_path(tmp_path / "a.npz") as path, replaced_folder(tmp_path / "f") as folder:
        assert forked(lambda: check_writable(tmp_path), tmp_path).code == SAVED
        check_writable(tmp_path)
        path.write_text("x")
        (folder / "y").write_text("y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "f"]


def test_files_of_another_machine_or_without_an_owner(tmp_path) -> None:
    """Nobody here knows whether its process is alive, so that time has to tell."""
    here = this_process()
    names = {
        "elsewhere": f".a.{here.pid}-{here.started}-00000000.abc.tmp.json",
        "of a number given anew": f".a.{here.pid}-1-{here.machine}.abc.tmp.json",
        "of before": ".a.abc.tmp.json",
        "the user's": ".hidden",
        "the user's own": ".table.reserved",
        "held": f".probe_20260101-000000{RESERVED}",
    }
    for name in names.values():
        (tmp_path / name).write_text("x")

    def after(seconds: float) -> set[str]:
        for path in tmp_path.iterdir():
            os.utime(path, (time.time() - seconds,) * 2)
        remove_leftovers(tmp_path)
        return set(left(tmp_path))

    day = 24 * 3600
    assert after(day - 60) == set(names.values()) - {names["of a number given anew"]}
    assert after(day + 60) == {names["of before"], names["the user's"], names["the user's own"]}


def test_owners() -> None:
    assert this_process().alive
    assert Owner(2**30, "1", this_process().machine).alive is False
    assert Owner(2**70, "1", this_process().machine).alive is False
    assert this_process()._replace(started="1").alive is False
    assert this_process()._replace(machine="x").alive is None
    assert this_process()._replace(pid=1).alive is False, "it did not start when this process did"


@pytest.mark.parametrize("kind", [replaced_folder, atomic_folder])
def test_folders(tmp_path, kind) -> None:
    def work() -> None:
        with kind(tmp_path / "out") as folder:
            write_json(folder / "a.json", {"a": "b" * 500})

    killed(work, tmp_path)
    work()
    assert left(tmp_path) == [] and [path.name for path in (tmp_path / "out").iterdir()] == ["a.json"]


def test_what_a_scene_leaves_is_not_published(tmp_path) -> None:
    """A quick look that was being drawn; a journal that was being written."""
    with RowStore(tmp_path / ".unfinished", "cells", (2,), np.float32, "f") as store:
        store.append(np.zeros(2))
    killed(lambda: write_text(OutputSet(tmp_path).new("quick_look.png"), "x" * 500), tmp_path)
    beside = temporary_file(tmp_path / ".unfinished" / "cells.json")
    beside.rename(beside.with_name(beside.name.replace(f".{os.getpid()}-", ".1073741824-")))
    with RowStore(tmp_path / ".unfinished", "cells", (2,), np.float32, "f") as store:
        assert store.done == 1
    outputs = OutputSet(tmp_path)
    outputs.new("embeddings.tif").write_text("x")
    outputs.publish({"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings.tif", "scene.json"]


def test_what_a_stage_leaves_is_not_of_its_files(tmp_path) -> None:
    def stage(text: str) -> None:
        StageCache(tmp_path, report=lambda text: None).stage(
            "a", {}, lambda folder: str(write_text(folder / "b", text))
        )

    killed(lambda: stage("x" * 500), tmp_path)
    stage("y")
    assert sorted(path.name for path in (tmp_path / "stages/a").iterdir()) == ["b", "inputs.json", "stage.json"]


def test_a_reservation_is_not_for_ever(tmp_path) -> None:
    with new_run(tmp_path, "probe") as files:
        (reserved,) = tmp_path.glob(f".*{RESERVED}")
        remove_leftovers(tmp_path)
        assert reserved.exists() and files.run_id in reserved.name
    assert not left(tmp_path)


def test_folders_are_removed_with_what_is_in_them(tmp_path) -> None:
    folder = temporary_folder(tmp_path / "export")
    (folder / "weights").write_text("x" * 2_000_000)
    folder.rename(tmp_path / folder.name.replace(f".{os.getpid()}-", ".1073741824-"))
    remove_leftovers(tmp_path)
    assert not left(tmp_path)


def test_what_cannot_be_removed_is_in_nobodys_way(tmp_path, monkeypatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError

    folder = temporary_folder(tmp_path / "export")
    folder.rename(tmp_path / folder.name.replace(f".{os.getpid()}-", ".1073741824-"))
    monkeypatch.setattr(os, "rmdir", denied)
    remove_leftovers(tmp_path)


def test_a_new_file_is_not_left_open(tmp_path) -> None:
    temporary_file(tmp_path / "a.json")
    assert not open_files(tmp_path)


def test_an_embedding_run_killed_anywhere(campaign, checkpoint, tmp_path) -> None:  # noqa: F811
    """With the rows of a split that may be 16 GB: after the next run the folder holds its files and no others."""
    out = tmp_path / "out"
    (tmp_path / "few.csv").write_text("\n".join((SAMPLE / "bigearthnet-train.csv").read_text().split()[:6]) + "\n")
    config = write_config(
        tmp_path / "embed.yaml",
        model={"checkpoint_path": str(checkpoint), "device": "cpu"},
        data={"dataset_path": str(SAMPLE), "splits": {"train": str(tmp_path / "few.csv")}, "batch_size": 3},
        embed={"out_dir": str(out), "name": "e"},
    )

    def work() -> None:
        embed(["--config_yaml", str(config)])

    work()
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    calls = forked(work, out).calls
    faults = faults_of(calls, len(whole["e_train.npz"]))

    def one(attempt: Attempt) -> str:
        shutil.rmtree(out)
        out.mkdir()
        fault = faults[attempt.number * 5 % len(faults)]
        ended = forked(work, out, fault)
        attempt.keep(out, "out")
        attempt.keep(f"{fault} {ended}", "fault.txt")
        assert ended.code != 1, ended.said
        check_writable(out)
        assert not left(out)
        for path in out.iterdir():
            assert path.name in whole and (path.suffix == ".json" or path.read_bytes() == whole[path.name])
        return {SAVED: "saved", KILLED: "killed"}.get(ended.code, "refused")

    campaign("file calls of an embedding run", 12, len(faults)).run(one)
