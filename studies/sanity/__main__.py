"""The sanity experiments of the paper's first page, each one command: `python -m studies.sanity overfit --out DIR`.

`overfit` overfits 100 patches, `routing` tests whether distinct land covers use the experts differently, `metadata`
ablates an encoder's metadata. Each prints whether its criterion is met and writes a report with figures and JSON into
`DIR/<experiment>`; what it needs (a pretrained encoder, for the last two) is made first, by the recipe of the config,
and kept in DIR for the next. `reproduce.py` runs the same under the names of `studies/registry.py`.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from configs.reproduction import ReproductionConfig, read_reproduction_config
from eval.probing.protocols import PROTOCOLS
from studies.engine.context import StudyContext
from studies.engine.stages import StageCache
from studies.report import report_of, write_report
from studies.report_parts.sections import Section
from studies.sanity.metadata import metadata_section
from studies.sanity.overfit import QUICK, overfit_section
from studies.sanity.routing import routing_section
from training.stopping import StopRequested, StopSignals
from utils.errors import run_script
from utils.files import check_writable
from utils.locks import held_alone
from utils.reporting import reporter

EXPERIMENTS: dict[str, Callable[[StudyContext], Section]] = {
    "overfit": overfit_section,
    "routing": routing_section,
    "metadata": metadata_section,
}

DEFAULT_CONFIG = "configs/reproduce_sample.yaml"

QUICK_OVERRIDES = ("training.epochs=2", "bootstrap.draws=100")
"""Of `--quick`, which shows that an experiment runs and is too short for its outcome to mean anything."""

UNUSED = ("studies=[]", "eurosat=null", "other=null", "study.data=null")
"""Data that the experiments do not use."""

NOT_PASSED = 1
"""Exit code."""


def main(argv: list[str] | None = None) -> int:
    """Run one experiment; 0 where it met its criterion (or could not be run on these data), else `NOT_PASSED`."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    overrides = [*(QUICK_OVERRIDES if options.quick else ()), *options.overrides]
    overrides += [f"out_dir={options.out}", *UNUSED]
    try:
        with StopSignals() as signals:
            config = read_reproduction_config(options.config_yaml, overrides, (), tuple(PROTOCOLS))
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose another --out"):
                return _run(config, folder, options, signals, started)
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)


def _run(
    config: ReproductionConfig, folder: Path, options: argparse.Namespace, signals: StopSignals, started: float
) -> int:
    """Run the experiment and write its report; returns the exit code."""
    context = StudyContext.prepare(config, StageCache(folder), signals)
    section = _experiment(options.experiment, options.quick)(context)
    report = report_of(context, section.title, f"Data: {context.data.main.patches()}.", [section], started)
    reporter.info("\n".join(section.text))
    reporter.info(f"report: {write_report(report, folder / options.experiment)}")
    return NOT_PASSED if section.passed is False else 0


def _experiment(name: str, quick: bool) -> Callable[[StudyContext], Section]:
    if quick and name == "overfit":
        return partial(overfit_section, recipe=QUICK)
    return EXPERIMENTS[name]


def _parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.sanity", description="The sanity experiments of the paper's first page."
    )
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--out", required=True, metavar="DIR", help="working folder; the report goes into a part of it")
    parser.add_argument("--quick", action="store_true", help="a run of seconds that shows that it works")
    parser.add_argument("--config_yaml", default=DEFAULT_CONFIG, metavar="FILE",
                        help=f"data and recipe, as for reproduce.py (default {DEFAULT_CONFIG})")  # fmt: skip
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY.SUB=VALUE",
                        help="replace one value of the configuration; may be repeated")  # fmt: skip
    return parser


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
