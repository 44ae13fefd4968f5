"""`python -m models.checkpoint [WEIGHTS]`, also `moemae weights`: what weights are, or which there are by a name."""

import argparse
import sys

from utils.errors import run_script
from utils.reporting import reporter


def main(argv: list[str] | None = None) -> int:
    """Say what weights are, after checking every entry; or list the names."""
    parser = argparse.ArgumentParser(description="Check weights by their content and say what they hold.")
    parser.add_argument(
        "weights",
        nargs="?",
        metavar="WEIGHTS",
        help="a .pth file, ours or published, or what else MOEMAE.from_pretrained takes; none: the names are listed",
    )
    source = parser.parse_args(argv).weights
    if source is None:
        from models.named_weights import listing

        for line in listing():
            reporter.info(line)
        return 0
    from models.moe_mae import count_parameters
    from models.pooling import vector_width
    from models.pretrained import read_weights, weights_path
    from utils.files import sha256

    checkpoint = read_weights(weights_path(source))
    config = checkpoint.config
    reporter.info(
        f"{source}: {'a published file' if checkpoint.published else 'a file of this project'}, every entry in place"
    )
    reporter.info(f"  size        {config.size}, {count_parameters(checkpoint.build()):,} parameters")
    reporter.info(f"  input       {config.in_channels} bands of {config.img_size} x {config.img_size} pixels")
    reporter.info(f"  metadata    {', '.join(config.meta_fields) or 'none'}")
    reporter.info(f"  pooling     {config.pool}, {vector_width(config, config.pool)} numbers a patch")
    reporter.info(f"  published_behaviour: {str(config.published_behaviour).lower()}")
    reporter.info(f"  sha256      {sha256(checkpoint.path)}")
    return 0


def command() -> None:
    """What `python -m models.checkpoint` does in place of being imported; ends the process."""
    run_script(lambda: main(sys.argv[1:]))
