"""Every stage from data to report: `python reproduce.py --config_yaml configs/reproduce_sample.yaml`.

Pack or read, pretrain, reconstruct, embed, evaluate by kNN and linear probes next to baselines, run the studies, and
write `report.html` with its CSV, JSON and PNG files. Stages with unchanged inputs are reused; after an interruption the
same command continues.
"""

import sys
import time
from pathlib import Path

from configs.reproduction import ReproductionConfig, read_reproduction_config
from eval.probing.protocols import PROTOCOLS
from studies.comparison.claims import claims_section, few_blocks
from studies.comparison.findings import findings_section
from studies.comparison.literature import published_section, setting_section
from studies.comparison.main_table import main_rows, main_section, summary
from studies.comparison.reconstruction import opening_section, reconstruction_section
from studies.engine.context import StudyContext
from studies.engine.stages import StageCache
from studies.registry import STUDIES
from studies.report import report_of, write_report
from studies.report_parts.sections import Section
from training.stopping import StopRequested, StopSignals
from utils.config import config_parser
from utils.errors import run_script
from utils.files import check_writable
from utils.locks import held_alone
from utils.reporting import reporter


def main(argv: list[str] | None = None) -> int:
    """Validate the config, do what is not done yet, write the report; returns the exit code."""
    parser = config_parser("Every stage from data to one report.", reads="every key: configs/reproduction.py")
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    try:
        with StopSignals() as signals:
            config = read_reproduction_config(
                arguments.config_yaml, arguments.overrides, tuple(STUDIES), tuple(PROTOCOLS)
            )
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose out_dir"):
                report = _reproduce(config, folder, signals, started)
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)
    reporter.info(f"report: {report}")
    return 0


def _reproduce(config: ReproductionConfig, folder: Path, signals: StopSignals, started: float) -> Path:
    context = StudyContext.prepare(config, StageCache(folder), signals)
    data = context.data
    reporter.info(f"== {config.title}: {data.main.measured_on()}")
    opening = opening_section(context)
    sections = [reconstruction_section(context)]
    rows_of = {source.key: main_rows(context, source) for source in data.probed}
    sections += [main_section(context, source, rows_of[source.key]) for source in data.probed]
    reporter.info(summary(context, data.main, rows_of[data.main.key]))
    sections.append(published_section(context, rows_of))
    sections += _study_sections(context)
    claims = claims_section(sections, few_blocks(context))
    first = [findings_section(context, rows_of), *([] if opening is None else [opening])]
    last = [*([] if claims is None else [claims]), setting_section(context)]
    subtitle = f"Main dataset: {data.main.measured_on()}."
    return write_report(report_of(context, config.title, subtitle, [*first, *sections, *last], started), folder)


def _study_sections(context: StudyContext) -> list[Section]:
    chosen = list(STUDIES) if context.config.studies == "all" else context.config.studies
    found = []
    for name in chosen:
        reporter.info(f"== study: {name}")
        found.append(STUDIES[name](context))
    return found


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
