"""What hiding half of every patch does to embeddings: `python -m studies.hidden_half --dataset_path DIR …`.

The left half of every patch is taken away. How far is its embedding from that of the whole patch, and how well does a
probe that was fitted on whole patches score on it? Once with the hidden pixels left out, as everywhere in this project,
and once with the dataset's mean in their place.

    python -m studies.hidden_half --dataset_path DIR --dataset_csv samples.csv --checkpoint weights/….pth

Probes are those of `eval.probing.protocols.strong_probe`, in folds of whole areas, on the labelled patches among them.
"""

import sys

from models.pooling import POOLINGS
from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.hidden_half", description="What hiding half of a patch does.")
    add = parser.add_argument
    add("--dataset_path", required=True, type=user_path, metavar="DIR", help="BigEarthNet-Landsat, or a pack of it")
    add("--dataset_csv", required=True, type=user_path, metavar="FILE", help="its patches; also by name inside DIR")
    add("--checkpoint", required=True, metavar="FILE", help="what MOEMAE.from_pretrained takes")
    add("--pool", choices=POOLINGS, default="patch_mean", help="default: %(default)s")
    add("--seed", type=int, default=0, help="of folds and intervals (default: %(default)s)")
    add("--json", type=user_path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args(argv)
    from models.moe_mae import MOEMAE
    from studies.half_patches import AS_MEAN, LEFT_OUT, embed_ways, outcomes, read_patches, record, say
    from utils.files import write_json

    model = MOEMAE.from_pretrained(arguments.checkpoint)
    dataset, labels = read_patches(arguments.dataset_path, arguments.dataset_csv, model)
    ways = embed_ways(model, dataset, arguments.pool)
    found = outcomes(ways, labels, dataset.ids, dataset.classes, arguments.seed)
    difference = found[LEFT_OUT].score.minus(found[AS_MEAN].score).interval()
    say(found, difference, dataset, arguments.pool)
    if arguments.json is not None:
        write_json(arguments.json, record(found, difference, dataset, arguments))
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
