"""Reconstruction metrics against hand values, baselines against loops, and the script end to end."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from tiny import TINY_MODEL, sample_ids, some_pixels, write_bigearthnet, write_config

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from eval.evaluate_mae import PSNR, evaluate_reconstruction, evaluation_masking, validation_losses
from eval.reconstruction_baselines import BASELINES, dataset_mean, inverse_distance, visible_mean
from eval_mae import main
from models import build_model
from models.checkpoint import write_checkpoint
from models.losses import LossWeights, mae_loss, patch_errors
from models.masking import patchify, random_masking, visible_patches
from utils.randomness import generator
from utils.sensors import OLI

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return build_model(
        TINY_MODEL["size"], seed=0, **{k: v for k, v in TINY_MODEL.items() if k not in ("size", "device")}
    ).eval()


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(11)))
    found = BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv")
    found.hold_in_memory()
    return found


def images_and_mask(seed: int = 0):
    rng = generator(seed, "baselines")
    images = torch.randn(2, 7, 40, 40, generator=rng)
    valid = torch.rand(2, 40, 40, generator=rng) > 0.1
    mask = random_masking(torch.rand(2, 100, generator=rng), 0.75).mask
    return images * valid.unsqueeze(1), valid, mask


def band_means(images, valid, mask):
    """Per image: {visible patch: (band means, valid pixels)}, in plain loops."""
    for image, good, removed in zip(images, valid, mask, strict=True):
        found = {}
        for n in range(100):
            if not removed[n]:
                r, c = 4 * (n // 10), 4 * (n % 10)
                window, ok = image[:, r : r + 4, c : c + 4], good[r : r + 4, c : c + 4]
                if ok.any():
                    found[n] = (window[:, ok].mean(dim=1), int(ok.sum()))
        yield found


def test_visible_mean_by_a_loop() -> None:
    images, valid, mask = images_and_mask()
    guess = visible_mean(images, valid, mask, 4).view(2, 100, 7, 16)
    for row, found in zip(guess, band_means(images, valid, mask), strict=True):
        pixels = sum(count for _, count in found.values())
        expected = sum(mean * count for mean, count in found.values()) / pixels
        torch.testing.assert_close(row, expected[None, :, None].expand(100, 7, 16), atol=1e-5, rtol=1e-4)


def test_interpolation_by_a_loop() -> None:
    images, valid, mask = images_and_mask()
    guess = inverse_distance(images, valid, mask, 4).view(2, 100, 7, 16)
    for row, found in zip(guess, band_means(images, valid, mask), strict=True):
        for n in range(0, 100, 7):
            if n in found:
                torch.testing.assert_close(row[n, :, 0], found[n][0], atol=1e-3, rtol=1e-3)
                continue
            total, weights = torch.zeros(7), 0.0
            for m, (mean, count) in found.items():
                weight = count / 16 / ((n // 10 - m // 10) ** 2 + (n % 10 - m % 10) ** 2)
                total, weights = total + weight * mean, weights + weight
            torch.testing.assert_close(row[n], (total / weights)[:, None].expand(7, 16), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_cannot_see_masked_or_fill_pixels(name: str) -> None:
    images, valid, mask = images_and_mask()
    hidden = torch.nn.functional.interpolate(mask.view(2, 1, 10, 10), scale_factor=4).bool() | ~valid.unsqueeze(1)
    changed = torch.where(hidden, 100.0, images)
    baseline = BASELINES[name]
    assert torch.equal(baseline(images, valid, mask, 4), baseline(changed, valid, mask, 4))


def test_the_real_sample_is_as_hard_as_known(real_patches) -> None:
    """Dataset mean, visible mean and interpolation on 119 real patches: about 137, 33 and 23."""
    dataset = BigEarthNetDatasetLS(real_patches, "samples.csv", labels="skip", published_behaviour=True)
    batch = dataset.batch(range(len(dataset)))
    mask = random_masking(torch.rand(119, 100, generator=generator(0, "mask")), 0.75).mask
    found = [
        patch_errors(baseline(batch.images, batch.valid, mask, 4), batch.images, batch.valid, 4).mean(mask).item()
        for baseline in (dataset_mean, visible_mean, inverse_distance)
    ]
    assert found == pytest.approx([136.8, 33.4, 23.1], rel=0.08)


def test_masks_depend_on_seed_and_id_only(model, dataset) -> None:
    whole = evaluation_masking(dataset.batch(range(6)), model, seed=1)
    part = evaluation_masking(dataset.batch([4, 2]), model, seed=1)
    assert torch.equal(whole.mask[[4, 2]], part.mask)
    assert not torch.equal(whole.mask, evaluation_masking(dataset.batch(range(6)), model, seed=2).mask)


def test_metrics_are_those_of_one_large_batch_whatever_the_batch_size(model, dataset) -> None:
    results = [
        evaluate_reconstruction(model, BatchLoader(dataset, size, 0, CPU), 3, LossWeights()) for size in (11, 4, 1)
    ]
    batch = dataset.batch(range(11))
    with torch.no_grad():
        masking = evaluation_masking(batch, model, 3)
        losses, _ = mae_loss(model, batch.images, batch.meta, masking, batch.valid)
    assert results[0]["masked_loss"] == pytest.approx(losses.masked.item(), rel=1e-5)
    assert results[0]["visible_loss"] == pytest.approx(losses.visible.item(), rel=1e-5)
    assert results[0]["balance_loss"] == pytest.approx(losses.balance.item(), rel=1e-5)
    assert results[0]["total_loss"] == pytest.approx(losses.total.item(), rel=1e-5)
    for other in results[1:]:
        for key in ("masked_loss", "visible_loss", "full_loss"):
            assert other[key] == pytest.approx(results[0][key], rel=1e-4)
        assert other["psnr"] == pytest.approx(results[0]["psnr"], rel=1e-4)
    found = validation_losses(model, BatchLoader(dataset, 4, 0, CPU), 3, LossWeights())
    assert found["val_m_loss"] == pytest.approx(losses.masked.item(), rel=1e-5)


def test_as_published_every_batch_counts_the_same(dataset) -> None:
    model = build_model("XXS", seed=0, embed_dim=24, depth=1, published_behaviour=True).eval()
    found = evaluate_reconstruction(model, BatchLoader(dataset, 8, 0, CPU), 3, LossWeights())
    means = []
    for part in (range(8), range(8, 11)):
        batch = dataset.batch(part)
        with torch.no_grad():
            masking = evaluation_masking(batch, model, 3)
            means.append(mae_loss(model, batch.images, batch.meta, masking, batch.valid)[0].masked.item())
    assert found["masked_loss"] == pytest.approx(sum(means) / 2, rel=1e-5)


def test_full_loss_is_the_mean_square_at_mask_ratio_zero(model, dataset) -> None:
    found = evaluate_reconstruction(model, BatchLoader(dataset, 11, 0, CPU), 3, LossWeights())
    batch = dataset.batch(range(11))
    visible = visible_patches(batch.valid, 4)
    order = torch.arange(100).expand(11, -1).masked_fill(~visible, 100)  # hidden ones are predicted, not seen
    with torch.no_grad():
        predicted = model.decode(model.encode(batch.images, batch.meta, visible=visible).tokens, order)
    squared = (predicted - patchify(batch.images, 4)).square()
    counted = patchify(batch.valid.unsqueeze(1).float(), 4).repeat(1, 1, 7)
    assert found["full_loss"] == pytest.approx(((squared * counted).sum() / counted.sum()).item(), rel=1e-5)


def test_psnr_by_hand(dataset) -> None:
    """A constant error of 1,000 numbers is 0.0275 in reflectance: 31.2 dB; clipping hides what leaves 0 to 1."""
    batch = dataset.batch([0, 1])
    batch = batch._replace(images=batch.images.clamp(-0.5, 0.5), valid=torch.ones_like(batch.valid))
    std = dataset.normalize.std
    mask = torch.ones(2, 100)
    off = PSNR(dataset.normalize)
    off.add(patchify(batch.images + 1000.0 / std, 4), batch, mask, 4)
    assert list(off.per_band()) == list(OLI.bands)
    for value in off.per_band().values():
        assert value == pytest.approx(-20 * math.log10(0.0275), abs=1e-3)
    perfect = PSNR(dataset.normalize)
    perfect.add(patchify(batch.images, 4), batch, mask, 4)
    assert set(perfect.per_band().values()) == {None}
    bright = batch._replace(images=torch.full_like(batch.images, 50.0))
    clipped = PSNR(dataset.normalize)
    clipped.add(patchify(bright.images + 10.0, 4), bright, mask, 4)
    assert set(clipped.per_band().values()) == {None}


@pytest.fixture
def checkpoint(model, tmp_path):
    write_checkpoint(tmp_path / "tiny.pth", model, epoch=0, best_train_loss=0.0)
    return tmp_path / "tiny.pth"


def eval_config(tmp_path, checkpoint, **evaluation):
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(5)))
    return write_config(
        tmp_path / "eval.yaml",
        model={"checkpoint_path": str(checkpoint), "device": "mps"},
        data={"dataset_path": str(SAMPLE), "dataset_csv": str(tmp_path / "some.csv"), "batch_size": 2},
        eval={"reconstructions_dir": str(tmp_path / "out"), **evaluation},
    )


def test_the_script_gives_the_same_numbers_twice(tmp_path, checkpoint, capsys) -> None:
    config = eval_config(tmp_path, checkpoint)
    texts = []
    for _ in range(2):
        assert main(["--config_yaml", str(config)]) == 0
        texts.append((tmp_path / "out" / "metrics.json").read_text())
    assert texts[0] == texts[1]
    metrics = json.loads(texts[0])
    keys = {"masked_loss", "visible_loss", "balance_loss", "total_loss", "full_loss", "psnr", "baselines", "patches"}
    assert keys <= set(metrics)
    assert set(metrics["baselines"]) == {"dataset_mean", "visible_mean", "interpolation"}
    assert metrics["patches"] == 5
    assert len(metrics["checkpoint"]["sha256"]) == 64
    for name in ("reconstructions_masked.png", "reconstructions_full.png"):
        assert (tmp_path / "out" / name).stat().st_size > 20_000
    said = capsys.readouterr().out
    if not torch.backends.mps.is_available():
        assert said.count("device mps is not available on this machine; using the CPU") == 2
    assert "interpolation" in said


def test_panels_can_be_left_out(tmp_path, checkpoint) -> None:
    config = eval_config(tmp_path, checkpoint, save_reconstructions_masked=2, save_reconstructions_full=False)
    main(["--config_yaml", str(config)])
    assert (tmp_path / "out" / "reconstructions_masked.png").exists()
    assert not (tmp_path / "out" / "reconstructions_full.png").exists()


def test_all_fill_patches_are_counted(tmp_path, model) -> None:
    names = ["S2A_MSIL2A_20170613T101031_1_1", "S2A_MSIL2A_20170613T101031_1_2"]
    write_bigearthnet(tmp_path, {names[0]: some_pixels(), names[1]: np.zeros((7, 41, 41), np.uint16)})
    loader = BatchLoader(BigEarthNetDatasetLS(tmp_path, "split.csv"), 1, 0, CPU)
    found = evaluate_reconstruction(model, loader, 0, LossWeights())
    assert (found["patches"], found["skipped_fill"]) == (1, 1)
