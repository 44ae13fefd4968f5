"""Evaluate the reconstruction: `python eval_mae.py --config_yaml configs/eval_moe_mae.yaml`."""

import sys
from typing import Any

from utils.arguments import config_parser
from utils.errors import run_script
from utils.reporting import reporter
from utils.sensors import Sensor

PANELS = 8
"""Patches in a picture, where the config only says that there should be one."""


def main(argv: list[str] | None = None) -> int:
    """Validate the config, evaluate, write `metrics.json` and the panels; returns the exit code."""
    parser = config_parser(
        "Reconstruction losses and PSNR of a checkpoint, beside baselines on the same masks.",
        reads="sections model, data, eval",
    )
    arguments = parser.parse_args(argv)
    from configs.build import build_configured_dataset, load_configured_model, loss_weights, result_origin
    from configs.schema import read_config
    from datasets.loader import BatchLoader
    from eval.evaluate_mae import evaluate_reconstruction
    from eval.panels import save_full_panels, save_masked_panels
    from utils.devices import select_device
    from utils.files import check_writable, write_json

    required = ("model.checkpoint_path", "data.dataset_path", "data.dataset_csv")
    config = read_config(arguments.config_yaml, arguments.overrides, required)
    folder = check_writable(config.eval.reconstructions_dir)
    device = select_device(config.model.device)
    data = config.data
    model = load_configured_model(config, device)
    assert data.dataset_path is not None and data.dataset_csv is not None  # `required` above
    dataset = build_configured_dataset(config, model.config, data.dataset_path, data.dataset_csv)
    dataset.hold_in_memory()
    loader = BatchLoader(dataset, data.batch_size, data.num_workers, device)
    metrics = evaluate_reconstruction(model, loader, config.eval.seed, loss_weights(config.training, model.config))

    origin = {**model.masking.to_dict(), **result_origin(config, model, dataset, device, "eval")}
    written = [write_json(folder / "metrics.json", {**metrics, **origin})]
    _print_summary(metrics, dataset.kind, dataset.sensor)
    if count := _panels(config.eval.save_reconstructions_masked):
        written.append(save_masked_panels(model, dataset, count, config.eval.seed, folder))
    if count := _panels(config.eval.save_reconstructions_full):
        written.append(save_full_panels(model, dataset, count, folder))
    reporter.info("\n".join(["written:", *(f"  {item}" for item in written)]))
    return 0


def _panels(asked: bool | int) -> int:
    return PANELS * asked if isinstance(asked, bool) else asked


def _print_summary(metrics: dict[str, Any], kind: str, sensor: Sensor) -> None:
    skipped = f", {metrics['skipped_fill']} all-fill patches left out" if metrics["skipped_fill"] else ""
    reporter.info(f"{metrics['patches']} {kind}{skipped}")
    reporter.info(
        f"  masked {metrics['masked_loss']:.3f}  visible {metrics['visible_loss']:.3f}  "
        f"balance {metrics['balance_loss']:.4f}  total {metrics['total_loss']:.3f}  full {metrics['full_loss']:.4f}"
    )
    reporter.info("  on the same masks        masked loss   PSNR of red, NIR (dB)")
    rows = {"this model": metrics, **metrics["baselines"]}
    for name, row in rows.items():
        red, nir = (row["psnr"][band] for band in map(sensor.band, ("red", "nir08")))
        shown = "  ".join("   -" if value is None else f"{value:4.1f}" for value in (red, nir))
        reporter.info(f"  {name:24s} {row['masked_loss']:11.3f}   {shown}")
    if metrics["masked_loss"] >= metrics["baselines"]["visible_mean"]["masked_loss"]:
        reporter.info("  the model is no better than each image's visible mean: it has not learned where patches are")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
