"""Other writers at every file call: exports, probes, and the outputs of a scene."""

import json

import numpy as np
import pytest
from every_call import at_every_call
from file_calls import SAVED, Ended
from PIL import Image
from probe_data import make_data
from tiny import tiny_model

from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.probe_files import new_run, write_run
from models import MOEMAE
from release.folder import atomic_folder
from scenes.outputs import OutputSet
from studies.report import FIGURES, REPORT, RESULTS, TABLES, Report, write_report
from studies.report_parts.sections import Figure, Section, Table
from utils.recorded import PROBE_SUFFIXES


def test_an_export_is_whole_or_absent(tmp_path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from models.weights_folder import write_weights_folder

    model, out = tiny_model(depth=1), tmp_path / "place" / "export"

    def work() -> None:
        with atomic_folder(out) as folder:
            write_weights_folder(folder, model, {})

    def check(ended: Ended) -> None:
        assert out.exists() or ended.code != SAVED
        if out.exists():
            assert MOEMAE.from_pretrained(out).config == model.config

    at_every_call(tmp_path / "place", "file calls of an export", 12, 200_000, lambda folder: None, work, check)


def test_a_probe_is_whole_or_not_there(tmp_path) -> None:
    x, _, y = make_data()
    probe, folder = LogisticRegressionModel(multilabel=False).fit(x, y), tmp_path / "place"
    expected = probe.predict(x)

    def work() -> None:
        with new_run(folder, "probe") as files:
            write_run(files, probe, {"scores": 1}, None)

    def check(ended: Ended) -> None:
        records = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
        assert records or ended.code != SAVED
        for record in records:  # written last
            assert json.loads(record.read_text())["scores"] == 1
            for suffix in PROBE_SUFFIXES:
                found = LogisticRegressionModel.load(record.with_suffix(suffix))
                assert np.array_equal(found.predict(x), expected)
        work()

    at_every_call(folder, "file calls of a probe", 12, 4_000, lambda folder: None, work, check)


def test_the_outputs_of_a_scene_are_of_one_run(tmp_path) -> None:
    """Where its record is, all files that it names are there and of its run; the next run completes a set."""
    folder = tmp_path / "place"

    def publish(run: str, names: list[str]) -> None:
        outputs = OutputSet(folder)
        for name in names:
            outputs.new(name).write_text(run * 500)
        outputs.publish({"run": run, "files": names})

    def check(ended: Ended) -> None:
        def whole(needed: bool) -> None:
            record = folder / "scene.json"
            assert record.exists() or not needed
            if record.exists():
                said = json.loads(record.read_text())
                assert said["run"] == "second" or ended.code != SAVED
                for name in said["files"]:
                    assert (folder / name).read_text() == said["run"] * 500
                kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
                assert kept >= {*said["files"], "scene.json"}

        whole(needed=False)
        OutputSet(folder)  # what the next run does first
        whole(needed=True)

    def second() -> None:
        publish("second", ["embeddings.tif", "similarity.tif", "cells.parquet"])

    at_every_call(
        folder,
        "file calls of a scene's outputs",
        40,
        3_500,
        lambda place: publish("first", ["embeddings.tif", "land_cover.tif"]),
        second,
        check,
    )


def test_each_part_of_a_report_is_of_one_report(tmp_path) -> None:
    """Its page, its results, its tables and its figures: all of the earlier one or of the new one, and none in part."""
    folder = tmp_path / "place"
    for run in ("first", "second"):
        for number in range(2):
            picture = tmp_path / run / f"figure{number}.png"
            picture.parent.mkdir(exist_ok=True)
            Image.new("RGB", (2 + number, 2 + len(run))).save(picture)

    def report(run: str, tables: int) -> None:
        figures = [Figure(tmp_path / run / f"figure{number}.png", run) for number in range(2)]
        table = [Table(f"{run}{number}", run, ["a"], [[run]] * 40, run) for number in range(tables)]
        section = Section(run, [run], table, figures)
        write_report(Report(run, run, [section], {}, {"python": "3", "packages": {}}, [], 1.0), folder)

    def parts() -> dict[str, object]:
        """What is there of each part; an unfinished folder is not one of them."""
        found: dict[str, object] = {}
        for name in (REPORT, RESULTS, TABLES, FIGURES):
            path = folder / name
            if path.is_dir():
                found[name] = {file.name: file.read_bytes() for file in path.iterdir()}
            else:
                found[name] = path.read_bytes() if path.exists() else None
        return found

    known = {}
    for run, tables in (("second", 1), ("first", 2)):
        report(run, tables)
        known[run] = parts()

    def check(ended: Ended) -> None:
        for name, content in parts().items():
            missing = content is None and name in (TABLES, FIGURES) and ended.code != SAVED
            assert missing or content in [known[run][name] for run in known], name
        if ended.code == SAVED:
            assert parts() == known["second"]
        report("second", 1)
        assert parts() == known["second"]

    at_every_call(
        folder,
        "file calls of a report",
        12,
        4_000,
        lambda place: report("first", 2),
        lambda: report("second", 1),
        check,
    )
