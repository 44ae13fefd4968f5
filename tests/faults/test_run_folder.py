"""A training folder at every file call, at every power loss, and with damaged files."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from faults import Attempt, damaged
from file_calls import KILLED, REFUSED, SAVED, faults_of, forked, states_after_power_loss
from pretraining import train
from tiny import tiny_model, training_config

from models.moe_mae import MOEMAE
from training.run_folder import RunFolder, verify
from utils.errors import UserError

METRICS, LOG = "training_metrics_XXS.csv", "training_log_XXS.jsonl"


@pytest.fixture(scope="module")
def model() -> MOEMAE:
    return tiny_model(depth=1)


def save(folder: Path, model: MOEMAE, epoch: int) -> None:
    offsets = {METRICS: 100 * epoch, LOG: 1000 * epoch}
    record = {"epoch": epoch, "batch_in_epoch": 0, "log_offsets": offsets}
    RunFolder(folder, "XXS", False).save(model, record, epoch=epoch, best_train_loss=0.0)


def found(folder: Path) -> int | None:
    """The epoch that a resumed run would go on from."""
    newest = RunFolder(folder, "XXS", False).newest()
    if newest is None:
        return None
    checkpoint, record = newest
    assert record["epoch"] == checkpoint.content["epoch"], "a record of another checkpoint"
    assert record["log_offsets"] == {METRICS: 100 * record["epoch"], LOG: 1000 * record["epoch"]}
    return record["epoch"]


@pytest.fixture(scope="module")
def twice(tmp_path_factory, model) -> Path:
    """A folder that has been saved into after the first and the second epoch."""
    folder = tmp_path_factory.mktemp("twice")
    for epoch in (1, 2):
        save(folder, model, epoch)
    return folder


# --------------------------------------------------------------------------- damage


@pytest.mark.parametrize("ending", [".json", ".pth"])
def test_a_damaged_pair_is_the_other_pair(campaign, twice, tmp_path, ending) -> None:
    """Never a cut in mid-row, never a refusal: the one before is whole."""
    folder = shutil.copytree(twice, tmp_path / "run")
    path = folder / f"checkpoint_XXS{ending}"
    whole = path.read_bytes()

    def one(attempt: Attempt) -> str:
        data = damaged(whole, attempt.random)
        attempt.keep(data, path.name)
        path.write_bytes(data)
        epoch = found(folder)
        assert epoch in (1, 2)
        return "harmless" if epoch == 2 else "the other pair"

    seen = campaign(f"damage of a checkpoint's {ending}", 20, 1000).run(one)
    assert seen["the other pair"] > 0.5 * seen.total()


def test_every_bit_of_a_record(campaign, twice, tmp_path) -> None:
    """Without reading the weights each time: a record is believed only with the very entries that were written."""
    folder = shutil.copytree(twice, tmp_path / "run")
    path = folder / "checkpoint_XXS.json"
    whole, record = path.read_bytes(), json.loads(path.read_text())

    def one(attempt: Attempt) -> str:
        bit = attempt.number * 1009 % (8 * len(whole))  # all of them, sooner or later
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        attempt.keep(bytes(data), path.name)
        path.write_bytes(data)
        if verify(folder / "checkpoint_XXS.pth") is not None:
            return "noticed"
        read = json.loads(data)
        assert {key: read[key] for key in read if key != "checksum_of"} == {
            key: record[key] for key in record if key != "checksum_of"
        }
        return "harmless"

    campaign("bits of a checkpoint's record", 1000, 8 * len(whole)).run(one)


def test_a_record_of_before_has_no_checksum(twice, tmp_path) -> None:
    folder = shutil.copytree(twice, tmp_path / "run")
    path = folder / "checkpoint_XXS.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if "checksum" not in key}))
    assert found(folder) == 2
    for key in ("checksum", "checksum_of"):  # one of the two is missing: it was written with both
        path.write_text(json.dumps({name: value for name, value in record.items() if name != key} | {"epoch": 7}))
        assert found(folder) == 1


def test_resumed_past_a_damaged_offset(tmp_path, capsys) -> None:
    """A run whose newest record has lost a digit goes on from the one before, and its metrics are the same."""
    config = training_config(tmp_path, epochs=3)
    assert train(config) == 0
    folder = tmp_path / "run"
    expected, record = (folder / METRICS).read_bytes(), folder / "checkpoint_XXS.json"
    text = record.read_text()
    record.write_text(re.sub(rf'("{METRICS}": )\d', r"\1", text))
    assert record.read_text() != text
    capsys.readouterr()
    assert train(config, "--resume") == 0
    assert "has a damaged checkpoint_XXS.json beside it; looking for another" in capsys.readouterr().out
    assert (folder / METRICS).read_bytes() == expected


def test_metrics_are_cut_between_rows_only(tmp_path) -> None:
    folder = RunFolder(tmp_path, "XXS", False)
    folder.metrics.write_text("epoch\n1\n2\n")
    folder.cut_to({METRICS: 8, LOG: 0})
    assert folder.metrics.read_text() == "epoch\n1\n"
    with pytest.raises(UserError, match=r"metrics_XXS\.csv: has no line that ends where the checkpoint recorded it"):
        folder.cut_to({METRICS: 7, LOG: 0})
    assert folder.metrics.read_text() == "epoch\n1\n"
    folder.cut_to({METRICS: 0, LOG: 0})
    assert folder.metrics.read_text() == ""


# --------------------------------------------------------------------------- every file call


def test_every_file_call_of_a_save(campaign, twice, model, tmp_path) -> None:
    """Killed before it, refused by the disk, or ending in mid-write: a pair verifies, the next save leaves it clean."""
    start = shutil.copytree(twice, tmp_path / "start")
    whole = forked(lambda: save(start, model, 3), start)
    assert whole.code == SAVED and whole.calls > 12
    faults = faults_of(whole.calls, (start / "checkpoint_XXS.pth").stat().st_size)

    def one(attempt: Attempt) -> str:
        fault = faults[attempt.number * 7 % len(faults)]
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(twice, folder)
        ended = forked(lambda: save(folder, model, 3), folder, fault)
        attempt.keep(folder, "run")
        attempt.keep(f"{fault} {ended}", "fault.txt")
        assert ended.code == SAVED or ended.code == (KILLED if (fault.error is None and fault.at is not None)
                                                     or fault.kill else REFUSED), ended  # fmt: skip
        assert "\n" not in ended.said
        epoch = found(folder)
        assert epoch == 3 if ended.code == SAVED else epoch in (2, 3)
        again = RunFolder(folder, "XXS", False)
        again.settle()
        assert found(folder) == epoch
        save(folder, model, 4)
        again.settle()
        assert found(folder) == 4
        names = {"checkpoint_XXS.json", "checkpoint_XXS.pth", "checkpoint_XXS.prev.json", "checkpoint_XXS.prev.pth"}
        assert {path.name for path in folder.iterdir()} == names
        return ("saved", "", "refused")[ended.code] if ended.code != KILLED else "killed"

    seen = campaign("file calls of a save", 30, len(faults)).run(one)
    assert seen["killed"] and seen["refused"]


def test_a_kill_within_a_link_leaves_nothing_behind(twice, model, tmp_path) -> None:
    """Two names of one file: renaming one to the other does nothing, and leaves both."""
    folder = shutil.copytree(twice, tmp_path / "run")
    for name in ("checkpoint_XXS.json", "checkpoint_XXS.pth"):
        older = folder / name.replace("XXS", "XXS.prev")
        older.unlink()
        os.link(folder / name, older)
    save(folder, model, 3)
    assert not list(folder.glob(".*"))
    assert found(folder) == 3


def test_without_hard_links(twice, model, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(twice, tmp_path / "run")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    save(folder, model, 3)
    (folder / "checkpoint_XXS.pth").write_bytes(b"")
    assert found(folder) == 2 and not list(folder.glob(".*"))


def test_a_new_pair_that_a_kill_left_is_looked_at(twice, model, tmp_path, monkeypatch) -> None:
    """And takes its place before anything else is done."""
    for older in ("kept", "lost"):
        folder = shutil.copytree(twice, tmp_path / older)
        if older == "lost":
            for path in folder.iterdir():
                path.write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "_take_place", lambda self: None)
            save(folder, model, 3)
        assert found(folder) == 3
        RunFolder(folder, "XXS", False).settle()
        assert not list(folder.glob(".*")) and found(folder) == 3
        assert verify(folder / "checkpoint_XXS.prev.pth") is None or older == "lost"
    RunFolder(tmp_path / "kept", "XXS", False).start_afresh()
    (moved,) = (tmp_path / "kept").glob("replaced_*")
    assert found(moved) == 3


# --------------------------------------------------------------------------- power loss


@pytest.mark.parametrize("saves", [0, 1, 2, 3])
def test_every_subset_of_renames_at_a_power_loss(model, tmp_path, saves: int) -> None:
    """Into an empty folder, over one pair, over two; and over a damaged newest one."""
    folder, state_folder = tmp_path / "run", tmp_path / "state"
    folder.mkdir()
    for epoch in range(1, min(saves, 2) + 1):
        save(folder, model, epoch)
    if saves == 3:
        (folder / "checkpoint_XXS.pth").write_bytes(b"damaged")
    earlier = {0: (None, 3), 1: (1, 3), 2: (2, 3), 3: (1, 3)}[saves]
    seen = []
    for state in states_after_power_loss(lambda: save(folder, model, 3), folder):
        shutil.rmtree(state_folder, ignore_errors=True)
        state_folder.mkdir()
        for name, content in state.items():
            (state_folder / name).write_bytes(content)
        epoch = found(state_folder)
        assert epoch in earlier, sorted(state)
        RunFolder(state_folder, "XXS", False).settle()
        assert found(state_folder) == epoch and not list(state_folder.glob(".*"))
        seen.append(epoch)
    assert set(seen) == set(earlier) and len(seen) > 4


def test_another_size_may_train_beside_it(tmp_path) -> None:
    with RunFolder(tmp_path, "XXS", False).held(), RunFolder(tmp_path, "S", False).held():
        with pytest.raises(UserError, match="another process is training in it"):
            RunFolder(tmp_path, "S", True).held().__enter__()
