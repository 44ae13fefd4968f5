"""The alarm for collapsed experts: by hand, and in a training run whose router never chooses one."""

import json
from pathlib import Path

import pytest
import torch
from tiny import TINY_MODEL, training_config

from models import build_model
from models.checkpoint import write_checkpoint
from pretrain_mae import main
from training.collapse import COLLAPSED_SHARE, CollapseAlarm, Collapsed, collapsed_experts, warning
from training.pretrain import Pretraining

ONE, OTHER = Collapsed(0, 2, 0.0), Collapsed(3, 1, 0.004)


def test_who_has_collapsed() -> None:
    usage = [[0.5, 0.5, 0.0], None, [0.3, COLLAPSED_SHARE, 0.69], [0.4, 0.004, 0.596]]
    assert collapsed_experts(usage) == [ONE, OTHER]
    assert collapsed_experts([None, [0.5, 0.5]]) == []


def test_every_fall_is_told_once() -> None:
    alarm = CollapseAlarm()
    assert alarm.new([]) == []
    assert alarm.new([ONE]) == [ONE]
    assert alarm.new([ONE, OTHER]) == [OTHER], "the first one has been warned about"
    assert alarm.new([OTHER]) == []
    assert alarm.new([ONE, OTHER]) == [ONE], "recovered, and collapsed again"


def test_the_memory_goes_through_a_checkpoint() -> None:
    alarm, resumed = CollapseAlarm(), CollapseAlarm()
    alarm.new([OTHER, ONE])
    state = json.loads(json.dumps(alarm.state()))
    assert state == [[0, 2], [3, 1]]
    resumed.restore(state)
    assert resumed.new([ONE, OTHER]) == []


def test_the_warning_names_block_expert_and_share() -> None:
    text = warning(OTHER, epoch=12)
    assert "expert 1 of block 3" in text and "0.40%" in text and "epoch 12" in text and "\n" not in text


@pytest.fixture
def config(tmp_path) -> Path:
    """A run from weights whose first block never chooses its expert 2, and hardly learns."""
    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    model = build_model("XXS", seed=0, **numbers)
    with torch.no_grad():
        model.encoder.layers[0].moe.gate.Wg.bias[2] = -1e4
    write_checkpoint(tmp_path / "start.pth", model, epoch=0, best_train_loss=0.0)
    return training_config(tmp_path, learning_rate=1e-6)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "training_log_XXS.jsonl").read_text().splitlines()]


def run(config: Path, *extra: str) -> int:
    return main(["--config_yaml", str(config), "--set", f"model.checkpoint_path={config.parent / 'start.pth'}", *extra])


def test_training_rings_once_and_marks_every_epoch(tmp_path, config, capsys) -> None:
    assert run(config) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len(told) == 1 and "expert 2 of block 0" in told[0] and "0.00%" in told[0] and "epoch 1" in told[0]
    assert [row["collapsed_experts"] for row in log_of(tmp_path)] == [[{"block": 0, "expert": 2, "share": 0.0}]] * 3


def test_a_resumed_run_does_not_ring_again(tmp_path, config, capsys, monkeypatch) -> None:
    keep = Pretraining._keep

    def keep_and_die(self, row):
        keep(self, row)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Pretraining, "_keep", keep_and_die)
        run(config)
    assert "expert 2 of block 0" in capsys.readouterr().out
    assert run(config, "--resume") == 0
    assert "warning:" not in capsys.readouterr().out
    assert [len(row["collapsed_experts"]) for row in log_of(tmp_path)] == [1, 1, 1]


def test_a_healthy_run_marks_nothing(tmp_path, capsys) -> None:
    assert main(["--config_yaml", str(training_config(tmp_path, epochs=1))]) == 0
    assert "warning:" not in capsys.readouterr().out
    assert log_of(tmp_path)[0]["collapsed_experts"] == []
