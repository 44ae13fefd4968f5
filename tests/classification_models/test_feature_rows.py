"""Features visited in chunks of rows, the memory that a fit takes, and the threads it uses."""

import threading

import numpy as np
import pytest
import torch
from probe_data import make_data

from classification_models import feature_rows, fitting, memory, preconditioner
from classification_models.feature_rows import FeatureRows
from classification_models.logistic_loss import LogisticLoss
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.memory_needs import memory_needs
from classification_models.solvers import PRECONDITIONED, SOLVERS, Size
from utils.errors import UserError

CPU = torch.device("cpu")


def test_features_of_any_type_order_and_alignment_give_the_same_statistics_and_rows(monkeypatch):
    monkeypatch.setattr(feature_rows, "CPU_CHUNK_BYTES", 700)
    x = np.float32(np.random.default_rng(0).integers(-50, 50, (100, 9)))
    unaligned = np.ndarray(x.shape, np.float32, bytearray(x.nbytes + 1), offset=1)
    unaligned[:] = x
    assert not unaligned.flags.aligned
    forms = [
        unaligned,
        x.astype(">f4"),
        np.asfortranarray(x),
        x.astype(np.float64),
        x.astype(np.float16),
        x.astype("i1"),
    ]
    x.flags.writeable = False
    for form in [x, *forms]:
        for resident in (False, True):
            rows = FeatureRows(form, CPU, resident)
            np.testing.assert_allclose(rows.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
            np.testing.assert_allclose(rows.std, x.std(axis=0, dtype=np.float64), rtol=1e-12)
            for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
                for _ in range(2):  # a second visit finds the same
                    centred = torch.cat([chunk.clone() for _, chunk in rows.chunks(dtype)])
                    assert centred.dtype == dtype
                    np.testing.assert_allclose(centred, x - x.mean(axis=0, dtype=np.float64), atol=tolerance)
    assert np.array_equal(unaligned, x)


def test_chunks_of_every_third_row(monkeypatch):
    monkeypatch.setattr(feature_rows, "CPU_CHUNK_BYTES", 4 * 9 * 7)
    x = np.float32(np.random.default_rng(0).integers(-50, 50, (100, 9)))
    rows = FeatureRows(x, CPU)
    chunks = [(part, chunk.clone()) for part, chunk in rows.chunks(torch.float32, every=3)]
    assert [len(chunk) for _, chunk in chunks] == [7, 7, 7, 7, 6] and chunks[-1][0] == slice(84, 100, 3)
    np.testing.assert_allclose(torch.cat([chunk for _, chunk in chunks]), (x - x.mean(axis=0))[::3], atol=1e-5)


def test_statistics_keep_their_digits_beside_a_large_mean():
    x = np.random.default_rng(0).normal(size=(1000, 3)) * 1e-3 + 1e6
    x[:, 2] = 1e6 + 0.1
    rows = FeatureRows(x, CPU)
    np.testing.assert_allclose(rows.std[:2], x[:, :2].std(axis=0), rtol=1e-6)
    assert rows.std[2] == 1 and rows.mean[2] == 1e6 + 0.1


def test_features_are_read_in_chunks_only(monkeypatch):
    monkeypatch.setattr(feature_rows, "CPU_CHUNK_BYTES", 2000)
    monkeypatch.setattr(preconditioner, "GRAM_CHUNK_BYTES", 4000)
    largest = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            part = super().__getitem__(key)
            largest.append(part.nbytes)
            return part

    x, multi_hot, _ = make_data()
    probe = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x.view(Watched), multi_hot)
    assert probe.report["converged"] and max(largest) <= 4000 < x.nbytes
    whole = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, multi_hot)
    np.testing.assert_allclose(probe.predict_proba(x), whole.predict_proba(x), atol=1e-3)


def test_threads_share_a_visit_and_change_no_bit(monkeypatch):
    monkeypatch.setattr(feature_rows, "CPU_CHUNK_BYTES", 500)
    x, multi_hot, _ = make_data()
    found = []
    for threads in (1, 3):
        rows = FeatureRows(x, CPU, threads=threads)
        objective = LogisticLoss(rows, multi_hot > 0, 1.0, False, False)
        found.append(objective.evaluate(objective.start() + 1, torch.arange(4)))
        used = [thread for _ in range(3) for thread in rows.visit(lambda *_: threading.current_thread(), torch.float32)]
        assert torch.get_num_threads() == 1 and len(set(used)) <= threads < len(used)  # the same threads again
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


def test_threads_are_as_many_as_asked_for_and_as_there_are(monkeypatch):
    x, _, _ = make_data()
    size = Size(300, 6, 4, False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(fitting.joblib, "cpu_count", lambda: 8)

    def planned(n_jobs):
        return fitting.plan_fit(x, size, PRECONDITIONED, "cpu", n_jobs, announce=False).threads

    assert planned(8) == 1  # a small problem
    monkeypatch.setattr(fitting, "ONE_THREAD_SIZE", 0)
    assert planned(8) == 2 and planned(1) == 1


def test_the_whole_of_bigearthnet_fits_in_24_gigabytes():
    """269,694 patches with all 105 tokens: the file, were it all in memory, and what the solver needs beside it."""
    size = Size(269_694, 15_120, 19, False)
    assert 4 * size.count * size.width + sum(memory_needs(PRECONDITIONED, size, 4, 1).values()) < 24e9
    assert sum(memory_needs("lbfgs", size, 4, 1).values()) > 30e9


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "newton-cg"])
def test_too_little_memory_is_one_line_before_anything_starts(monkeypatch, solver):
    x, multi_hot, _ = make_data()
    monkeypatch.setattr(fitting, "available_memory", lambda device: 1000)
    monkeypatch.setattr(fitting, "FeatureRows", None)
    with pytest.raises(UserError, match=f"{solver} on 300 x 6 features") as caught:
        LogisticRegressionModel(multilabel=True, solver=solver).fit(x, multi_hot)
    text = str(caught.value)
    assert "GiB" in text and "--feature-slice" in text and "\n" not in text
    assert ("--solver preconditioned-lbfgs" in text) == (solver != PRECONDITIONED)


def test_available_memory_is_the_machines_or_the_containers(tmp_path, monkeypatch):
    machine = memory.available_memory(CPU)
    assert 2**20 < machine < 2**50
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 20000\nactive_file 3000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory(CPU) == 1_023_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory(CPU) > 2**20
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    assert memory.available_memory(CPU) > 2**20


@pytest.mark.parametrize("error", [MemoryError("no"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you")])
def test_an_allocation_that_fails_is_one_line(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("classification_models.logistic_regression.FeatureRows", fail)
    with pytest.raises(UserError, match="did not suffice"):
        LogisticRegressionModel().fit(*make_data()[::2])
    with pytest.raises(RuntimeError, match="other"), memory.explain_lack_of_memory("cure"):
        raise RuntimeError("other")


def test_what_is_needed_is_said_where_it_is_much(tmp_path, monkeypatch, capsys):
    x, multi_hot, _ = make_data()
    probe = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED, verbose=True)
    probe.fit(x, multi_hot)
    assert capsys.readouterr().out == ""
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
    monkeypatch.setattr(fitting, "REPORTED_FROM", 0)
    monkeypatch.setattr(fitting, "block_edges", lambda width: [(0, 3), (3, 6)])
    probe.fit(mapped, multi_hot)
    said = capsys.readouterr().out
    assert "needed of" in said and "on cpu" in said and "2 blocks" in said and "from the disk" not in said
    needed = probe.report["memory_bytes"]
    monkeypatch.setattr(fitting, "available_memory", lambda device: needed + 2**20)
    monkeypatch.setattr(np.memmap, "nbytes", 2**21, raising=False)
    probe.fit(mapped, multi_hot)
    assert "every iteration will read from the disk" in capsys.readouterr().out
