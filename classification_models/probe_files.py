"""The files of one probe run, `<name>_<YYYYmmdd-HHMMSS>.*`: all of them written, or none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from classification_models.logistic_regression import LogisticRegressionModel
from utils.analysis_utils import save_figure
from utils.files import make_folder, sha256, write_json
from utils.temporary import RESERVED


class ProbeFiles(NamedTuple):
    """Where a run's files go."""

    run_id: str  # YYYYmmdd-HHMMSS, local time
    joblib: Path  # the model as published: a pickle
    npz: Path  # the model as plain arrays
    json: Path  # settings, provenance and scores
    png: Path  # scores per class; absent when nothing was scored


@contextmanager
def new_run(out: str | Path, name: str) -> Iterator[ProbeFiles]:
    """Reserve a run's file names; on an error inside, what was written under them is removed.

    Names are unique to the second. A run that meets another one's waits for the next second.

    Raises:
        UserError: when the folder cannot be made.
    """
    folder = make_folder(out)
    while True:
        run_id = datetime.now().strftime("%Y%m%d-%H%M%S")
        stem = f"{name}_{run_id}"
        files = ProbeFiles(run_id, *(folder / f"{stem}.{suffix}" for suffix in ProbeFiles._fields[1:]))
        reservation = folder / f".{stem}{RESERVED}"
        try:
            reservation.touch(exist_ok=False)
        except FileExistsError:
            time.sleep(0.1)
            continue
        try:
            if any(path.exists() for path in files[1:]):
                time.sleep(0.1)
                continue
            try:
                yield files
            except BaseException:
                for path in files[1:]:
                    path.unlink(missing_ok=True)
                raise
            return
        finally:
            reservation.unlink(missing_ok=True)


def write_run(
    files: ProbeFiles, probe: LogisticRegressionModel, record: dict[str, Any], figure: Figure | None
) -> list[Path]:
    """Write a run's files, the JSON last and with the hashes of both forms of the probe; returns those written.

    Raises:
        UserError: naming the file that could not be written.
    """
    written = [probe.save(files.joblib), probe.save(files.npz)]
    if figure is not None:
        written.append(save_figure(figure, files.png))
    hashes = {path.suffix: sha256(path) for path in (files.joblib, files.npz)}
    return [*written, write_json(files.json, {**record, "sha256": hashes})]
