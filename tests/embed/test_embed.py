"""Embedding files: what is in them, that they are the same every time, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, SAMPLE
from tiny import TINY_MODEL, sample_ids, some_pixels, write_bigearthnet, write_config

from datasets.bigearthnet import BigEarthNetDatasetLS
from embed.compute_embed import main
from models import build_model
from models.checkpoint import load_model, write_checkpoint
from models.masking import visible_patches
from models.pooling import POOLINGS, pool_tokens
from utils.errors import CheckpointError, ConfigError, DataError

NAMES = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(4)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    options = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    write_checkpoint(path, build_model("XXS", seed=0, **options), epoch=0, best_train_loss=0.0)
    return path


def embed_config(folder, checkpoint, pool="cls", **data):
    folder.mkdir(exist_ok=True)
    (folder / "some.csv").write_text("\n".join(sample_ids(7)))
    values = {"dataset_path": str(SAMPLE), "splits": {"train": str(folder / "some.csv")}, "batch_size": 3, **data}
    return write_config(
        folder / "embed.yaml",
        model={"checkpoint_path": str(checkpoint), "device": "cpu"},
        data=values,
        embed={"pool": pool, "out_dir": str(folder / "out"), "name": "e"},
    )


@pytest.mark.parametrize("pool", POOLINGS)
def test_the_file_holds_tokens_before_the_final_norm(tmp_path, checkpoint, pool: str) -> None:
    assert main(["--config_yaml", str(embed_config(tmp_path, checkpoint, pool))]) == 0
    arrays = np.load(tmp_path / "out" / "e_train.npz")
    assert sorted(arrays.files) == ["ids", "x_train", "y_train"]
    x, y = arrays["x_train"], arrays["y_train"]
    assert (x.dtype, y.dtype) == (np.float32, np.int16)
    assert y.shape == (7, 19)
    dataset = BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv", labels="error")
    batch = dataset.batch(range(7))
    with torch.no_grad():
        visible = visible_patches(batch.valid, 4)
        tokens = load_model(checkpoint).encode(batch.images, batch.meta, visible=visible).pre_norm.numpy()
    spreads = np.stack([image[5:][seen].std(0) for image, seen in zip(tokens, visible.numpy(), strict=True)])
    for image, seen in zip(tokens, visible.numpy(), strict=True):  # one of the patches has a strip of fill
        image[5:][~seen] = image[5:][seen].mean(axis=0)
    expected = {
        "all": tokens.reshape(7, 105 * 24),
        "mean": tokens.mean(1),
        "patch_mean": tokens[:, 5:].mean(1),
        "cls": tokens[:, 4],
        "meta_cls": tokens[:, :5].reshape(7, 5 * 24),
    }
    expected["cls_mean_std"] = np.hstack([expected["cls"], expected["patch_mean"], spreads])
    expected["meta_cls_mean_std"] = np.hstack([tokens[:, :4].mean(1), expected["cls_mean_std"]])
    scaled = np.stack([(cls - cls.mean()) / np.sqrt(cls.var() + 1e-5) for cls in expected["cls"]])
    before = [tokens[:, :4].mean(1), expected["cls"], scaled]
    expected["summary"] = np.hstack([*before, expected["patch_mean"], np.log(spreads + 1e-3)])
    np.testing.assert_allclose(x, expected[pool], atol=1e-5)
    assert arrays["ids"].tolist() == batch.ids
    assert np.array_equal(y, batch.labels.numpy())
    record = json.loads((tmp_path / "out" / "e_train.json").read_text())
    assert (record["pool"], record["width"], record["tokens"]) == (pool, 24, x.shape[1] // 24)
    assert len(record["checkpoint"]["sha256"]) == len(record["dataset_fingerprint"]) == 64
    assert record["config"]["embed"]["pool"] == pool
    assert len(record["classes"]) == 19
    assert not list((tmp_path / "out").glob(".*"))


def test_the_same_bytes_every_time_and_for_every_batch_size_the_same_numbers(tmp_path, checkpoint) -> None:
    files = []
    for name, batch_size in (("a", 3), ("b", 3), ("c", 7)):
        main(["--config_yaml", str(embed_config(tmp_path / name, checkpoint, "all", batch_size=batch_size))])
        files.append(tmp_path / name / "out" / "e_train.npz")
    assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_allclose(np.load(files[0])["x_train"], np.load(files[2])["x_train"], atol=1e-5)


def test_eurosat(tmp_path, checkpoint) -> None:
    folder = ROOT / "sample_dataset" / "eurosat-l-sample"
    splits = {"val": "eurosat-val.txt", "test": "eurosat-test.txt"}
    config = embed_config(tmp_path, checkpoint, dataset="eurosat_ls", dataset_path=str(folder), splits=splits)
    assert main(["--config_yaml", str(config)]) == 0
    arrays = np.load(tmp_path / "out" / "e_test.npz")
    assert arrays["x_test"].shape == (20, 24)
    assert arrays["y_test"].shape == (20,)
    assert set(arrays["y_test"].tolist()) <= set(range(10))


def test_missing_labels_refused_or_counted_and_fill_left_out(tmp_path, checkpoint, capsys) -> None:
    patches = {name: some_pixels(i) for i, name in enumerate(NAMES)}
    patches[NAMES[2]] = np.zeros((7, 41, 41), np.uint16)
    write_bigearthnet(tmp_path / "d", patches, {name: ["Pastures"] for name in NAMES[1:]})
    options = {"dataset_path": str(tmp_path / "d"), "splits": {"train": "split.csv"}}
    config = embed_config(tmp_path, checkpoint, **options)
    with pytest.raises(DataError, match=f"1 patches have no label file.*{NAMES[0]}"):
        main(["--config_yaml", str(config)])
    assert not list((tmp_path / "out").glob("*"))
    assert main(["--config_yaml", str(config), "--set", "data.missing_labels=skip"]) == 0
    assert np.load(tmp_path / "out" / "e_train.npz")["ids"].tolist() == [NAMES[1], NAMES[3]]
    assert "2 patches x 24 numbers, 1 all-fill left out, 1 without a label file left out" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "e_train.json").read_text())
    assert (record["skipped_fill"], record["skipped_without_labels"]) == (1, [NAMES[0]])


def test_nothing_is_left_when_a_file_is_bad_half_way(tmp_path, checkpoint) -> None:
    write_bigearthnet(tmp_path / "d", {name: some_pixels() for name in NAMES}, {name: ["Pastures"] for name in NAMES})
    bad = tmp_path / "d" / "images" / f"{NAMES[3]}.tif"
    bad.write_bytes(bad.read_bytes()[:999])
    options = {"dataset_path": str(tmp_path / "d"), "splits": {"train": "split.csv"}, "batch_size": 1}
    with pytest.raises(DataError, match=NAMES[3]):
        main(["--config_yaml", str(embed_config(tmp_path, checkpoint, **options))])
    assert not list((tmp_path / "out").iterdir())


def test_a_split_of_fill_only(tmp_path, checkpoint) -> None:
    write_bigearthnet(tmp_path / "d", {NAMES[0]: np.zeros((7, 41, 41), np.uint16)}, {NAMES[0]: ["Pastures"]})
    options = {"dataset_path": str(tmp_path / "d"), "splits": {"train": "split.csv"}}
    with pytest.raises(DataError, match="no patch of this split has a single valid pixel"):
        main(["--config_yaml", str(embed_config(tmp_path, checkpoint, **options))])


def test_another_size_is_refused(tmp_path, checkpoint) -> None:
    config = embed_config(tmp_path, checkpoint)
    with pytest.raises(CheckpointError, match="holds another model"):
        main(["--config_yaml", str(config), "--set", "model.size=S"])
    with pytest.raises(CheckpointError, match=r"model\.read_depth is None, not 1"):  # a probe would not know of it
        main(["--config_yaml", str(config), "--set", "model.read_depth=1"])
    with pytest.raises(ConfigError, match=r"data\.splits: is required"):
        main(["--config_yaml", str(config), "--set", "data.splits=null"])


def test_published_checkpoints_embed_as_published(tmp_path, reference_dir, real_patches) -> None:
    """Eight real patches, flattened tokens before the norm, equal to the published code's without noise."""
    arrays = np.load(reference_dir / "reference" / "published_layout_S_outputs.npz")
    folder = tmp_path / "p"
    checkpoint = reference_dir / "reference" / "published_layout_S.pth"
    options = {"dataset_path": str(real_patches), "splits": {"test": str(folder / "eight.csv")}}
    config = embed_config(folder, checkpoint, "all", **options)
    (folder / "eight.csv").write_text("\n".join(arrays["ids"].tolist()))
    assert main(["--config_yaml", str(config)]) == 0
    x = np.load(folder / "out" / "e_test.npz")["x_test"]
    np.testing.assert_allclose(x, arrays["encoder_tokens"].reshape(8, -1), atol=1e-4)


def test_unknown_pool() -> None:
    encoded = build_model("XXS", seed=0, depth=1).eval().encode(torch.zeros(1, 7, 40, 40))
    with pytest.raises(KeyError, match="max"):
        pool_tokens(encoded.pre_norm, "max", 5)
