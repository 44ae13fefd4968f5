"""Series of scenes, fine-tuning runs and their maps at every file call: whole or absent, and the next run mends."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from every_call import at_every_call
from file_calls import SAVED, Ended, forked
from labelled_ground import ground_config, write_ground
from scene_files import tiny_checkpoint
from series_files import DAYS, series, temporal_weights, write_date

from finetune import main as finetune

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """Name to bytes of the files of a folder and of those in it, but for hidden ones."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(folder) for path in paths]
    return {str(name): (folder / name).read_bytes() for name in names if not any(p[0] == "." for p in name.parts)}


def made_by(work: Callable[[], object], folder: Path, here: bool = False) -> Files:
    """What work leaves in a folder, in a child process or here, so that child processes find all modules loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    if here:
        work()
    else:
        ended = forked(work, folder)
        assert ended.code == SAVED, ended.said
    assert not list(folder.glob(".*")), "nothing unfinished is left"
    return files_of(folder)


def results_are_of_one_run(folder: Path, record: str, known: list[Files], again: Callable[[], object]) -> Callable:
    """A check: where the record is, all that was made with it is there and of that run; the next run mends the rest.

    Args:
        folder: of the results.
        record: the file that says what is there, with numbers that differ from run to run.
        known: what the earlier run and the one with faults leave.
        again: the work.
    """
    results = [{name: data for name, data in files.items() if name != record} for files in known]

    def check(ended: Ended) -> None:
        found = files_of(folder)
        if found.pop(record, None) is not None:
            assert found in results[ended.code == SAVED :], [sorted(found), *map(sorted, results)]
        else:
            assert ended.code != SAVED
        mended = made_by(again, folder)
        assert json.loads(mended.pop(record)) and mended == results[1]

    return check


@pytest.mark.parametrize("form", ["cog", "zarr"])
def test_a_series(tmp_path, form) -> None:
    """Over one of the first date alone: cells of dates, vectors, changes, pictures and the record are of one run."""
    if form == "zarr":
        pytest.importorskip("zarr", reason="zarr is not installed")
    folder, days = tmp_path / "place" / "out", [f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in DAYS[:2]]
    scenes = [write_date(tmp_path / "scenes", day, side=(45, 50)) for day in DAYS[:2]]
    checkpoint, vectors = tiny_checkpoint(tmp_path / "tiny.pth"), temporal_weights(tmp_path / "temporal.npz")
    small = ["--stride", 20, "--cell", 4, "--min-clear", 0.1]
    options = {"cog": ["--vector", vectors, "--change", *days], "zarr": ["--format", "zarr"]}[form]

    def first() -> None:
        series(scenes[:1], checkpoint, folder, *small, "--format", "both" if form == "zarr" else "cog")

    def second() -> None:
        series(scenes, checkpoint, folder, *small, *options)

    here = form == "cog"  # Zarr starts threads, which a fork does not take along
    known = [made_by(work, folder, here) for work in (second, first)][::-1]
    before = shutil.copytree(folder, tmp_path / "before")
    at_every_call(
        tmp_path / "place",
        f"file calls of a series, {form}",
        8 if form == "cog" else 4,
        max(map(len, known[1].values())),
        lambda place: shutil.copytree(before, folder),
        second,
        results_are_of_one_run(folder, "series.json", known, second),
    )


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> dict:
    return write_ground(tmp_path_factory.mktemp("ground"))


def test_a_fine_tuning_run(ground, tmp_path) -> None:
    """Head, adapters, log and scores have the same bits when it is resumed."""
    folder = tmp_path / "place" / "run"
    changes = {"encoder__mode": "lora", "training__steps": 2, "training__weight_path": str(folder)}
    config = ground_config(tmp_path, ground, **changes)
    results = ("finetuned_best.pth", "scores.json", "curves_finetuned.png", "test_confusions.npz")

    def work() -> None:
        assert finetune(["--config_yaml", str(config), "--resume"]) == 0

    def same(files: Files) -> Files:
        """What tells no times; of the same content, checkpoints are other bytes once they have been read."""
        return {name: files[name] for name in (*results, "log_finetuned.csv", "config_finetuned.yaml")}

    expected = same(made_by(work, folder, here=True))

    def check(ended: Ended) -> None:
        found = files_of(folder)
        if ended.code == SAVED:
            assert same(found) == expected
        for name in results[1:]:
            assert found.get(name) in (None, expected[name])
        assert same(made_by(work, folder)) == expected

    at_every_call(
        tmp_path / "place",
        "file calls of a fine-tuning run",
        5,
        max(map(len, expected.values())),
        lambda place: None,
        work,
        check,
    )


def test_a_map_of_a_fine_tuned_run(ground, tmp_path) -> None:
    """Over an earlier one without probabilities."""
    run, folder = tmp_path / "run", tmp_path / "place" / "out"
    assert finetune(["--config_yaml", str(ground_config(tmp_path, ground))]) == 0

    def second(*options: str) -> None:
        scene = ["--predict", ground["scene"], "--run", str(run), "--out", str(folder), "--device", "cpu"]
        assert finetune([*scene, *options]) == 0

    known = [made_by(work, folder, here=True) for work in (second, lambda: second("--classes-only"))][::-1]
    before = shutil.copytree(folder, tmp_path / "before")
    at_every_call(
        tmp_path / "place",
        "file calls of a map by a fine-tuned run",
        6,
        max(map(len, known[1].values())),
        lambda place: shutil.copytree(before, folder),
        second,
        results_are_of_one_run(folder, "prediction.json", known, second),
    )
