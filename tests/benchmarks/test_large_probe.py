"""The benchmark of the large probe makes the file it fits, by the documented command, and says what that took."""

import json

import numpy as np
import pytest

from benchmarks import large_probe
from benchmarks.probe_data import probe_problem
from utils.errors import UserError

pytestmark = pytest.mark.runs


def test_a_small_problem_is_made_fitted_and_measured_and_its_file_used_again(tmp_path, capsys) -> None:
    command = ["--out", str(tmp_path), "--rows", "200", "--width", "24"]
    assert large_probe.main(command) == 0
    features = tmp_path / large_probe.FILE
    with np.load(features) as arrays:
        x, y = probe_problem(200, 24, large_probe.LABELS, multilabel=True, seed=0)
        assert np.array_equal(arrays["x_train"], x) and np.array_equal(arrays["y_train"], y)
    assert not list(tmp_path.glob("*.rows"))
    written = (tmp_path / large_probe.RESULT).read_text()
    assert str(tmp_path) not in written
    record = json.loads(written)
    assert record["fit"]["converged"] and record["fit"]["x_shape_train"] == [200, 24]
    usage = record["usage"]
    assert min(usage["processor"], usage["wall"]) > 0 and 0 <= usage["own"] <= usage["resident"]
    assert "200 × 24, 19 labels: converged in" in capsys.readouterr().out
    made = features.stat().st_mtime_ns
    assert large_probe.main([*command, "--C", "0.1"]) == 0 and features.stat().st_mtime_ns == made
    with pytest.raises(UserError, match="holds other features"):
        large_probe.main([*command, "--seed", "1"])


def test_refusals_name_the_cure(tmp_path) -> None:
    with pytest.raises(UserError, match="more than the disk has"):
        large_probe.make_features(tmp_path / large_probe.FILE, 10**12, 24, seed=0)
    with pytest.raises(UserError, match="ended with code 3"):
        large_probe.measured(["python3", "-c", "raise SystemExit(3)"], threads=1)
