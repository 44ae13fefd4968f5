"""Every stage from data to report: `python reproduce.py --config_yaml configs/reproduce_sample.yaml`.

Pack or read, pretrain, reconstruct, embed, evaluate by kNN and linear probes next to baselines, run the studies, and
write `report.html` with its CSV, JSON and PNG files. Stages with unchanged inputs are reused; after an interruption the
same command continues.
"""

import sys
import time

from utils.arguments import config_parser
from utils.errors import run_script
from utils.reporting import reporter


def main(argv: list[str] | None = None) -> int:
    """Validate the config, do what is not done yet, write the report; returns the exit code."""
    parser = config_parser("Every stage from data to one report.", reads="every key: configs/reproduction.py")
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    from configs.reproduction import read_reproduction_config
    from eval.probing.protocols import PROTOCOLS
    from studies.registry import STUDIES
    from studies.reproduction import reproduce
    from training.stopping import StopRequested, StopSignals
    from utils.files import check_writable
    from utils.locks import held_alone

    try:
        with StopSignals() as signals:
            config = read_reproduction_config(
                arguments.config_yaml, arguments.overrides, tuple(STUDIES), tuple(PROTOCOLS)
            )
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose out_dir"):
                report = reproduce(config, folder, signals, started)
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)
    reporter.info(f"report: {report}")
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
