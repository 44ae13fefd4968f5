"""Labels to classes and maps, on the pretrained encoder.

    python finetune.py --config_yaml configs/finetune_segmentation.yaml [--resume]
    python finetune.py --predict SCENE --run outputs/finetuning --out outputs/map

The first trains a head (and adapters, or the whole encoder) for one label an image, several, or one for every pixel; it
stops early on a validation part and scores the best weights on a test part. The second maps a scene at 30 m:
`classes.tif`, `probabilities.tif`, names, colours, a picture and `prediction.json`.
"""

import argparse
import sys

from scenes.options import joined, pair
from utils.arguments import ArgumentParser, user_path
from utils.errors import ConfigError, run_script


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; one of the two commands."""
    parser = ArgumentParser(description="Fine-tune for labels of images or pixels, or map a scene with such a run.")
    add = parser.add_argument
    add("--config_yaml", metavar="FILE", help="the configuration of a run (configs/finetuning.py lists its keys)")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY.SUB=VALUE",
        help="replace one value of the configuration; may be repeated")  # fmt: skip
    add("--resume", action="store_true", help="go on from the newest checkpoint that verifies")
    add("--predict", metavar="SCENE", help="map this scene with a finished run instead")
    add("--run", type=user_path, metavar="DIR", help="folder of the run (with --predict)")
    add("--out", type=user_path, metavar="DIR", help="folder for the map (with --predict)")
    add("--bands", metavar="NAME,…", help="bands of one GeoTIFF that is no product of Landsat 8 or 9: blue,green,…")
    add("--scale", type=pair, metavar="A,B", help="reflectance = value * A + B, where it is not Collection 2's")
    add("--classes-only", action="store_true", help="no probabilities.tif, which is large")
    add("--device", default="auto", help="that maps: auto (default), cpu, cuda, cuda:N or mps")
    arguments = parser.parse_args(joined(sys.argv[1:] if argv is None else argv, ("--scale",)))
    if bool(arguments.config_yaml) == bool(arguments.predict):
        parser.error("give --config_yaml to train, or --predict to map")
    if arguments.predict and not (arguments.run and arguments.out):
        parser.error("--predict takes --run and --out as well")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Train or map; returns the exit code."""
    arguments = parse_arguments(argv)
    return _predict(arguments) if arguments.predict else _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from configs.finetuning import read_finetuning_config
    from finetuning.run import finetune
    from training.stopping import StopRequested, StopSignals
    from utils.files import check_writable
    from utils.reporting import reporter

    config = read_finetuning_config(arguments.config_yaml, arguments.overrides)
    try:
        with StopSignals() as signals:
            check_writable(config.training.weight_path)
            return finetune(config, arguments.resume, signals)
    except StopRequested as request:
        reporter.info("stopped by a signal before the first step; nothing to save")
        return StopSignals.exit_code(request.number)


def _predict(arguments: argparse.Namespace) -> int:
    from configs.finetuning import LabelledSceneSection
    from datasets.image_bands import band_names
    from finetuning.predict import predict
    from utils.devices import select_device

    bands = arguments.bands.split(",") if arguments.bands else None
    if bands is not None:
        try:
            band_names(bands)
        except ValueError as error:
            raise ConfigError(f"--bands: does not say what the bands are: {error}") from error
        if arguments.scale is None:
            raise ConfigError("--scale: is required with --bands: reflectance = number * A + B")
    scale, offset = arguments.scale or (None, 0.0)
    section = LabelledSceneSection(scene=arguments.predict, labels="-", bands=bands, scale=scale, offset=offset)
    device = select_device(arguments.device)
    predict(section, arguments.run, arguments.out, device, write_probabilities=not arguments.classes_only)
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
