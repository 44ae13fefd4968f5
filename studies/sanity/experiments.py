"""The sanity experiments by name, and one of them from its config to its report."""

import time
from collections.abc import Callable
from functools import partial

from configs.reproduction import read_reproduction_config
from eval.probing.protocols import PROTOCOLS
from studies.engine.context import StudyContext
from studies.engine.stages import StageCache
from studies.report import report_of, write_report
from studies.report_parts.sections import Section
from studies.sanity.metadata import metadata_section
from studies.sanity.overfit import QUICK, overfit_section
from studies.sanity.routing import routing_section
from training.stopping import StopRequested, StopSignals
from utils.files import check_writable
from utils.locks import held_alone
from utils.reporting import reporter

EXPERIMENTS: dict[str, Callable[[StudyContext], Section]] = {
    "overfit": overfit_section,
    "routing": routing_section,
    "metadata": metadata_section,
}

NOT_PASSED = 1
"""Exit code."""


def run_experiment(name: str, config_yaml: str, overrides: list[str], quick: bool) -> int:
    """Run one experiment; 0 where it met its criterion (or could not be run on these data), else `NOT_PASSED`.

    Args:
        name: a key of `EXPERIMENTS`.
        config_yaml, overrides: data, recipe and `out_dir`, as for reproduce.py.
        quick: so short that its outcome means nothing.
    """
    started = time.perf_counter()
    try:
        with StopSignals() as signals:
            config = read_reproduction_config(config_yaml, overrides, (), tuple(PROTOCOLS))
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose another --out"):
                context = StudyContext.prepare(config, StageCache(folder), signals)
                section = _experiment(name, quick)(context)
                report = report_of(context, section.title, f"Data: {context.data.main.patches()}.", [section], started)
                reporter.info("\n".join(section.text))
                reporter.info(f"report: {write_report(report, folder / name)}")
                return NOT_PASSED if section.passed is False else 0
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)


def _experiment(name: str, quick: bool) -> Callable[[StudyContext], Section]:
    if quick and name == "overfit":
        return partial(overfit_section, recipe=QUICK)
    return EXPERIMENTS[name]
