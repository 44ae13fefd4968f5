"""The script for a GPU: what it says without one, and that its parts run, stay and go on."""

import json

import pytest
import torch

from benchmarks import gpu
from utils.errors import ConfigError, DataError

pytestmark = pytest.mark.runs


def test_without_a_gpu_nothing_is_measured(tmp_path, capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert gpu.main(["--out", str(tmp_path / "out")]) == 0
    assert "no GPU here: not measured" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_parts_are_kept_and_not_made_again(tmp_path, monkeypatch, capsys) -> None:
    made = []

    def part(name: str, alike: bool = True):
        return lambda run: made.append(name) or {"alike": alike, "largest_difference": 0.5}

    monkeypatch.setattr(gpu, "PARTS", {"captured_step": part("captured_step"), "table": part("table")})
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path)]
    assert gpu.main([*options, "--only", "captured_step"]) == 0
    assert gpu.main(options) == 0 and made == ["captured_step", "table"]
    assert "captured_step: there already" in capsys.readouterr().out
    (path,) = tmp_path.glob("gpu_*.json")
    record = json.loads(path.read_text())
    assert set(record["parts"]) == {"captured_step", "table"} and record["machine"]["device"]
    path.write_text(json.dumps({**record, "machine": {"device": "another"}}))
    monkeypatch.setattr(gpu, "PARTS", {"captured_step": part("again", alike=False)})
    assert gpu.main(options) == 1 and made[-1] == "again"
    assert gpu.main([*options, "--minutes", "0"]) == 1, "what is known stays known"
    path.unlink()
    assert gpu.main([*options, "--minutes", "0"]) == 0
    assert "captured_step: not measured, the 0 minutes are over" in capsys.readouterr().out


def test_what_fails_is_said(tmp_path) -> None:
    with pytest.raises(ConfigError, match="--only nothing: choose some of captured_step"):
        gpu.main(["--device", "cpu", "--only", "nothing", "--out", str(tmp_path)])
    run = gpu.Run(torch.device("cpu"), True, 60.0, tmp_path)
    with pytest.raises(DataError, match=r"benchmarks\.run ended with exit code 2: .*--only nothing"):
        gpu._module(run, "benchmarks.run", "--only", "nothing")


@pytest.mark.slow
def test_captured_and_eager_steps_are_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 2)
    found = gpu.captured_step(gpu.Run(torch.device("cpu"), True, 60.0, tmp_path))
    assert found["alike"] and found["largest_difference"] < 1e-5
