"""Operations, timings, rows and tables of the benchmarks say what was measured."""

import json
import os
import time

import numpy as np
import pytest
import torch

from benchmarks import operations, paper_schedule, run
from benchmarks.check import PRODUCT, judged, reference_verdict, with_reference
from benchmarks.large_pack import make_large_pack, variations
from benchmarks.machine import BFLOAT16, LINEAR, Limits, Product, Shape, describe, measure_limits
from benchmarks.probe_data import probe_problem
from benchmarks.profile import group_of, profile_call, profile_table
from benchmarks.published import NOTE, PublishedWork, check_published
from benchmarks.reference import ReferenceMAE
from benchmarks.reference_cost import judge
from benchmarks.reference_work import by_field
from benchmarks.report import Goal, Row, results_table, timed_row
from benchmarks.rows_embed import embedding_works
from benchmarks.rows_load import SPLIT, copy_sample, make_pack, open_dataset, read_all, read_as_published
from benchmarks.rows_memory import measure_peak
from benchmarks.rows_probe import fit_row, objective, wide_row
from benchmarks.rows_train import train_rows, training_works
from benchmarks.setting import Setting, sample_batch
from benchmarks.timing import WARM_UP, Timing, alternate, faster, quartiles
from datasets.pack.format import verify_checksums
from models import ModelConfig
from utils.errors import ConfigError, UserError

pytestmark = pytest.mark.runs

CPU = torch.device("cpu")
LIMITS = Limits(4e9, Product(LINEAR, Shape(1, 1, 1)), 2e9, 8e9, 1e10, {})


@pytest.fixture(scope="module")
def quick() -> Setting:
    return Setting(CPU, measure_limits(CPU, quick=True), rounds=1, quick=True)


# --------------------------------------------------------------------------- operations, timing, machine


def test_operations_of_size_s() -> None:
    config = ModelConfig.of_size("S")
    assert operations.encoder_multiply_adds(config, 25) / 1e6 == pytest.approx(73.1, abs=0.05)
    head = config.num_patches * config.decoder_dim * config.patch_values
    assert (operations.decoder_multiply_adds(config) - head) / 1e6 == pytest.approx(18.4, abs=0.05)


def test_operations_are_those_that_torch_counts() -> None:
    """Of the embedding pass of a small model with the written-out attention of the reference, all experts chosen."""
    from torch.utils.flop_counter import FlopCounterMode

    config = ModelConfig.of_size("XXS", experts=3)
    model = ReferenceMAE(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encoder(torch.randn(1, 7, 40, 40), by_field(torch.randn(1, 4, 2)))
    tokens, extra = config.num_tokens, 4 * 2 * config.embed_dim  # the metadata's projections
    dense = operations.embedding_operations(config) / 2
    sparse = sum(  # two of three experts run, each with its own pass through V and W2
        tokens * config.embed_dim * width * (3 * 2 - (3 + 2)) for width in config.expert_widths
    )
    assert counter.get_total_flops() == 2 * (dense + sparse + extra)


def test_alternation_takes_turns_from_both_ends() -> None:
    calls: list[str] = []
    warm = 2 * WARM_UP["cpu"]

    def work(name: str):
        def call() -> None:
            calls.append(name)
            if len(calls) <= warm:  # the warm-up decides how often a turn repeats it
                time.sleep(0.25)

        return call

    timings = alternate({"a": work("a"), "b": work("b")}, 4, CPU)
    assert calls[warm:] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert all(len(timing.rounds) == 4 for timing in timings.values())
    with pytest.raises(ValueError, match="nothing to time"):
        alternate({}, 3, CPU)


def test_ratio_is_of_medians_with_the_quartiles_of_pairs() -> None:
    ours, reference = Timing((1.0, 2.0, 3.0)), Timing((2.0, 8.0, 9.0))
    ratio = faster(ours, reference)
    assert ratio.value == 4.0
    assert (ratio.low, ratio.high) == (2.5, 3.5)  # of 2, 4, 3
    assert quartiles([5.0]) == (5.0, 5.0)


def test_limits_are_measured(quick) -> None:
    limits = quick.limits
    assert 1e9 < limits.float32 < 1e14 and 1e8 < limits.bandwidth < 1e13
    assert limits.best(limits) == limits
    higher = limits._replace(bandwidth=2 * limits.bandwidth, linear=limits.linear / 2)
    assert limits.best(higher) == limits._replace(bandwidth=higher.bandwidth)
    assert limits.linear == max(limits.products[LINEAR].values()) <= limits.float32
    library, shape = limits.float32_by
    assert library != BFLOAT16 and limits.products[library]["x".join(map(str, shape))] == limits.float32
    assert describe(CPU)["threads"] == torch.get_num_threads()
    json.dumps(describe(CPU))


def test_sample_batch_repeats_the_sample() -> None:
    batch = sample_batch(310)
    assert batch.images.shape == (310, 7, 40, 40) and len(batch.training().ids) == 310
    assert torch.equal(batch.images[304], batch.images[0])


# --------------------------------------------------------------------------- the table


def test_table_says_met_void_and_not_measured() -> None:
    row = timed_row(
        "step",
        Timing((0.5,)),
        Timing((1.5,)),
        unit="ms",
        uses=("float32", 1e9),
        goal=Goal("≥ 2×", ratio=2.0),
        note="why",
    )
    assert row.met is True and row.ours == 500 and row.reference == 1500 and row.achieved == ("float32", 2e9)
    table = results_table([row, Row("compiled", "ms", note="no compiler")], LIMITS, on_gpu=False)
    assert "one GPU" in table and "one GPU" not in results_table([row], LIMITS, on_gpu=True)
    assert "3.00 (3.00 to 3.00)" in table and "| yes | not measured |" in table and "50%" in table
    assert "compiled [2] | not measured" in table and "[2] no compiler" in table

    void = row.judged(judge("train", 1.5, 1e9))
    assert void.met is None and "**void**" in results_table([void], LIMITS, on_gpu=False) and "VOID" in void.void
    assert row.judged(judge("train", 2.06, 228e9)) == row
    slow = timed_row("step", Timing((1.0,)), Timing((1.5,)), unit="ms", goal=Goal("≥ 2×", ratio=2.0))
    assert slow.met is False and "**no**" in results_table([slow], LIMITS, on_gpu=False)
    assert json.loads(json.dumps(slow.as_dict(LIMITS)))["met"] is False


def test_goals_in_their_own_unit() -> None:
    packed = timed_row("load", Timing((0.001,)), None, unit="patches/s", items=128, goal=Goal("≥ 50,000", least=5e4))
    assert packed.ours == 128_000 and packed.met is True and packed.ratio is None
    slow = timed_row("step", Timing((0.004,)), None, unit="ms", goal=Goal("≤ 2.5 ms", most=2.5))
    assert slow.met is False
    assert Row("x", "ms", goal=Goal("≤ 1", most=1)).met is None
    says = Row("memory", "MiB", goal=Goal("fits or says so"), note="needs 30 GiB", reached=True)
    assert says.met is True and "| yes |" in results_table([says], LIMITS, on_gpu=False)


# --------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("make", [training_works, embedding_works])
def test_works_run(quick, make) -> None:
    works = make(quick, ["reference", "eager"])
    assert set(works) == {"reference", "eager"}
    for work in works.values():
        work()


def test_both_sides_embed_the_same(quick) -> None:
    """But for the routing noise that the reference keeps: the same shape, and mostly the same numbers."""
    works = embedding_works(quick, ["reference", "eager"])
    ours, theirs = works["eager"](), works["reference"]()
    assert ours.shape == theirs.shape == (4, 105 * 144) and ours.dtype == theirs.dtype
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


def test_a_void_reference_takes_the_ratios_with_it(quick) -> None:
    row = timed_row("step", Timing((0.5,)), Timing((1.5,)), unit="ms", goal=Goal("≥ 2×", ratio=2.0))
    honest, void = judge("train", 2.06, 228e9), judge("train", 1.0, 228e9)
    assert judged([row], None) == [row]
    first, second = judged([row, row], honest)
    assert first.met and second.met and "2.06 s" in first.note
    assert [row.met for row in judged([row, row], void)] == [None, None]
    timings = {"reference": Timing((3.0,)), PRODUCT: Timing((1.0,))}
    assert reference_verdict("train", quick, timings, training_works) is None
    verdict = reference_verdict("train", quick._replace(quick=False), timings, training_works)
    assert verdict.rates[0] == quick.limits.float32_by.shape.operations and verdict.cost == 3.0


def test_what_cannot_be_compiled_is_not_reported(quick, monkeypatch) -> None:
    def refuse(function, **_):
        def call(*_):
            raise torch._dynamo.exc.TorchDynamoException("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    rows = {row.work: row for row in train_rows(quick)}
    compiled = rows["training step, compiled, batch 4"]
    assert compiled.ours is None and compiled.met is None and "no compiler here" in compiled.note
    assert rows["training step, eager, batch 4"].ours > 0


def test_loading_and_packing(tmp_path) -> None:
    root, ids = copy_sample(tmp_path / "bigearthnet-l", 5)
    assert len(set(ids)) == 5
    pack = make_pack(root, tmp_path / "pack")
    files, packed = open_dataset(root, SPLIT), open_dataset(pack, SPLIT)
    assert read_all(files) == read_all(packed) == read_as_published(root, ids) == 5
    assert torch.equal(files.batch(range(5)).images, packed.batch(range(5)).images)


def test_probe_objective_by_hand() -> None:
    x, y = np.array([[1.0], [-1.0]]), np.array([0, 1])
    coef, intercept = np.array([[1.0], [-1.0]]), np.zeros(2)
    expected = np.log1p(np.exp(-2.0)) + 2.0 / (2 * 0.5 * 2)
    assert objective(x, y, coef, intercept, C=0.5) == pytest.approx(expected)


def test_large_probes_say_what_they_need(quick) -> None:
    fitted = fit_row(quick, *probe_problem(300, 6, 3, multilabel=True, seed=0))
    assert fitted.ours >= 0 and "GiB beside the features" in fitted.note and fitted.details["report"]["converged"]
    planned = wide_row(quick, 3000, 500)
    assert planned.met is True and planned.unit == "MiB" and planned.ours > 0 and "not fitted" in planned.note


def test_memory_of_a_step(quick) -> None:
    peak = measure_peak(quick, "train", "eager", threads=1)
    assert peak.peak >= peak.before > 0 and peak.added == peak.peak - peak.before


def test_profile_parts_make_up_the_call() -> None:
    x = torch.randn(256, 256)
    parts = profile_call(lambda: torch.softmax(x @ x, -1).add_(1).clone(), CPU)
    found = {part.group for part in parts if part.seconds > 0}
    assert {"matrix products", "attention", "elementwise and sums", "copies, gathers and scatters"} <= found
    assert "matrix products" in profile_table({"a": parts})
    assert group_of("aten::_fused_adamw_") == "optimizer" and group_of("aten::native_layer_norm") == "normalisation"
    assert group_of("triton_poi_fused_add_0") == "fused by the compiler" and group_of("something") == "other"


# --------------------------------------------------------------------------- the commands


def test_run_writes_table_and_numbers(tmp_path, monkeypatch, capsys) -> None:
    row = timed_row("step", Timing((0.5,)), Timing((1.5,)), unit="ms", goal=Goal("≥ 2×", ratio=2.0))
    monkeypatch.setattr("benchmarks.rows_train.train_rows", lambda setting: [row])
    monkeypatch.setattr("benchmarks.machine.measure_limits", lambda device, quick: LIMITS)
    assert run.main(["--device", "cpu", "--quick", "--threads", "1", "--only", "train", "--out", str(tmp_path)]) == 0
    said, progress = capsys.readouterr()
    assert "step: 500.0 ms (reference 1,500 ms)" in progress
    (written,) = tmp_path.glob("cpu_*_train_quick.json")
    record = json.loads(written.read_text())
    assert record["rows"][0]["met"] is True and record["machine"]["threads"] == 1 and record["limits"]["float32"] > 0
    assert "| step |" in said and said.strip() in written.with_suffix(".md").read_text()
    assert "Quick run" in said


def test_a_cpu_is_timed_on_two_threads_unless_told_otherwise(tmp_path, monkeypatch) -> None:
    used: list[int] = []
    monkeypatch.setattr("benchmarks.rows_train.train_rows", lambda setting: used.append(torch.get_num_threads()) or [])
    monkeypatch.setattr("benchmarks.machine.measure_limits", lambda device, quick: LIMITS)
    before = torch.get_num_threads()
    try:
        for threads in ([], ["--threads", "1"]):
            run.main(["--device", "cpu", "--quick", "--only", "train", "--out", str(tmp_path), *threads])
    finally:
        torch.set_num_threads(before)
    assert used == [min(2, os.cpu_count() or 1), 1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--only", "train,cooking"], "cooking"),
        (["--only", ","], "names nothing"),
        (["--threads", "0"], "--threads 0"),
        (["--rounds", "0"], "--rounds 0"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda:63"], "cuda:63"),
    ],
)
def test_run_refuses_by_name(arguments, named, tmp_path) -> None:
    with pytest.raises(ConfigError, match=named):
        run.main([*arguments, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_variations_are_new_patches_with_the_same_fill() -> None:
    base = np.random.default_rng(0).integers(5000, 20000, (4, 7, 8, 8)).astype(np.uint16)
    base[1, :, :3] = 0
    made = np.concatenate(list(variations(base, 4 * 9, seed=0)))
    assert made.dtype == np.uint16 and np.array_equal(made[:4], base)
    assert len(np.unique(made.reshape(36, -1), axis=0)) == 36
    fill = (~made.any(axis=1)).sum(axis=(1, 2))
    assert np.array_equal(fill, np.tile(fill[:4], 9)) and fill[1] == 24
    assert np.array_equal(np.concatenate(list(variations(base, 4 * 9, seed=0))), made)


def test_large_pack_is_a_pack(tmp_path) -> None:
    pack = make_large_pack(tmp_path / "pack", 70, seed=0)
    verify_checksums(pack)
    dataset = open_dataset(pack, SPLIT)
    batch = dataset.batch(range(70))
    assert batch.images.shape == (70, 7, 40, 40) and len(set(batch.ids)) == 70 and dataset.simulated
    assert torch.equal((~batch.valid).sum(dim=(1, 2)), torch.from_numpy(dataset.fill))
    with pytest.raises(UserError, match="not empty"):
        make_large_pack(pack, 70, seed=0)


def test_paper_schedule_projects_from_whole_epochs() -> None:
    record = paper_schedule.summary(paper_schedule.Progress(10.0, [20.0, 25.0, 31.0, 36.0], 40.0), 1000, 128, CPU)
    assert record["seconds_an_epoch"] == 5.0 and record["steps_per_epoch"] == 8
    assert record["steps_per_second"] == 1.6 and record["patches_per_second"] == 200
    assert record["projected_seconds_of_500_epochs"] == 30 + 499 * 5
    assert "PROJECTED, not measured" in paper_schedule.describe_run(record)
    short = paper_schedule.summary(paper_schedule.Progress(10.0, [20.0], 40.0), 1000, 128, CPU)
    assert short["projected_seconds_of_500_epochs"] is None and "no projection" in paper_schedule.describe_run(short)
    cuda = paper_schedule.summary(paper_schedule.Progress(1.0, [5.0, 10.0], 11.0), 1000, 128, torch.device("cuda"))
    assert cuda["projection_meets_goal"] is True  # 6 + 499 * 5 s


def test_paper_schedule_reports_a_run_that_fails(tmp_path) -> None:
    command = ["--device", "cpu", "--patches", "16", "--batch", "8", "--minutes", "0.1", "--out", str(tmp_path)]
    with pytest.raises(UserError, match="exit code 2"):
        paper_schedule.main([*command, "--set", "training.epochs=0"])
    with pytest.raises(ConfigError, match="--patches"):
        paper_schedule.main(["--patches", "7", "--out", str(tmp_path)])


# --------------------------------------------------------------------------- the published code

PUBLISHED = {
    "models/moe_mae.py": """
import torch

def build_model(size, img_size, patch_size, in_chans):
    assert (size, img_size, patch_size, in_chans) == ("S", 40, 4, 7)
    return torch.nn.Linear(40, 2)

class MOEMAE(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
""",
    "pretrain_mae.py": """
from pathlib import Path

def train_epoch(model, loader, opt, scaler, alpha, beta, device, epoch, scheduler, total_epochs):
    (batch,) = loader
    print("what it prints is no answer")
    with Path("log").open("a") as file:
        print("train", [list(part.shape) for part in batch], alpha, beta, device, total_epochs, scheduler, file=file)
""",
    "embed/compute_embed.py": """
from pathlib import Path

def compute_geomoemae_embeddings(model, dataloader, device="cuda", use_autocast=True):
    with Path("log").open("a") as file:
        print("embed", len(dataloader[0]), device, use_autocast, file=file)
    if Path("broken").exists():
        raise RuntimeError("it broke")
""",
    "scheduler/schedulers.py": "def WarmupCosineLR(opt, total_steps, base_lr, warmup_steps):\n    return base_lr\n",
}


def test_the_published_code_runs_in_a_process_of_its_own(tmp_path) -> None:
    """A folder of the same layout, whose modules have the names of this project's."""
    with pytest.raises(ConfigError, match=r"has no models/moe_mae\.py; give the folder"):
        check_published(tmp_path)
    for name, code in PUBLISHED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    folder, batch = check_published(tmp_path), sample_batch(2)
    for name in ("train", "embed"):
        work = PublishedWork(name, folder, batch)
        work()
        if name == "embed":
            (tmp_path / "broken").touch()
            with pytest.raises(UserError, match="stops with RuntimeError: it broke"):
                work()
        else:
            work.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "train [[2, 7, 40, 40], [2], [2, 2], [2, 2], [2, 2], [2, 2]] 0.1 0.5 cpu 500 0.0003"
    assert lines[1:] == ["embed 6 cpu False"] * 2


def test_a_row_says_what_its_reference_is(tmp_path) -> None:
    row = timed_row("step", Timing((0.5,)), Timing((1.5,)), unit="ms")
    setting = Setting(CPU, LIMITS, rounds=1, quick=False)
    assert "stand-in" in with_reference([row], setting)[0].note
    assert with_reference([row], setting._replace(published=tmp_path))[0].note == NOTE
    assert reference_verdict("train", setting._replace(published=tmp_path), {}, lambda *_: {}) is None
