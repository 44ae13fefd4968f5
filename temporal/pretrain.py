"""Pretrain the temporal module: `python -m temporal.pretrain --config_yaml configs/pretrain_temporal.yaml [--resume]`.

Simulated places are made first and kept in `places.folder`; then dates are left out of their series and foretold.
"""

import sys

from utils.arguments import config_parser
from utils.errors import run_script


def main(argv: list[str] | None = None) -> int:
    """Validate the config, simulate what is not there yet, train; returns the exit code."""
    parser = config_parser("Pretrain the module that reads series.", reads="every key: configs/temporal.py")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint that verifies")
    arguments = parser.parse_args(argv)
    from configs.temporal import read_temporal_config
    from temporal.data import series_of
    from temporal.training import TemporalPretraining, run_folder
    from training.stopping import StopRequested, StopSignals
    from utils.files import check_writable
    from utils.reporting import reporter

    config = read_temporal_config(arguments.config_yaml, arguments.overrides)
    try:
        with StopSignals() as signals:
            check_writable(config.training.weight_path)
            with run_folder(config).held():
                made = series_of(config)
                run = TemporalPretraining(config, made.train, made.val, made.encoder, arguments.resume, signals)
                return run.run()
    except StopRequested as request:
        reporter.info("stopped by a signal before the first step; nothing to save")
        return StopSignals.exit_code(request.number)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
