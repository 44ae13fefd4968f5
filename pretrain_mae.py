"""Pretrain the masked autoencoder: `python pretrain_mae.py --config_yaml configs/pretrain_moe_mae.yaml [--resume]`.

Several GPUs, or machines, share every batch: `torchrun --nproc_per_node=N pretrain_mae.py --config_yaml …`.
"""

import sys

from utils.arguments import config_parser
from utils.errors import run_script


def main(argv: list[str] | None = None) -> int:
    """Validate the config, then train; returns the exit code."""
    parser = config_parser(
        "Pretrain the metadata-aware mixture-of-experts masked autoencoder.",
        reads="sections model, training, and data for dataset, crop and statistics",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint that verifies")
    arguments = parser.parse_args(argv)
    from configs.schema import read_config
    from training.pretrain import Pretraining, held_folder
    from training.stopping import StopRequested, StopSignals
    from utils.files import check_writable
    from utils.processes import joined_processes

    required = ("training.dataset_path", "training.dataset_csv")

    try:
        with joined_processes() as processes, StopSignals() as signals:
            config = processes.share(
                lambda: read_config(arguments.config_yaml, arguments.overrides, required, fresh_model=True)
            )
            # Before the data are read, which may take minutes.
            processes.share(lambda: check_writable(config.training.weight_path))
            with held_folder(config, processes):
                return Pretraining(config, arguments.resume, signals, processes).run()
    except StopRequested as request:
        processes.say("stopped by a signal before the first step; nothing to save")
        return signals.exit_code(request.number)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), several=True)
