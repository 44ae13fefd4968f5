"""The stages of `reproduce.py`, from data to one report."""

from pathlib import Path

from configs.reproduction import ReproductionConfig
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
from training.stopping import StopSignals
from utils.reporting import reporter


def reproduce(config: ReproductionConfig, folder: Path, signals: StopSignals, started: float) -> Path:
    """Do what is not done yet and write the report.

    Args:
        config: what to do.
        folder: where results of stages and the report go.
        signals: that stop it between two pieces of work.
        started: `time.perf_counter()` at the beginning, for the report.

    Returns:
        The report's file.
    """
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
