"""A fifth metadata field through every way in and out, with a four-field model beside it."""

import json

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from packing import pack
from pretraining import train
from scene_files import PRODUCT, some_numbers, write_product
from tiny import TINY_MODEL, sample_ids, training_config, write_config

import embed.compute_embed
import embed_scene
import export
from datasets.bigearthnet import BigEarthNetDatasetLS
from models import MOEMAE, build_model
from models.checkpoint import load_model, write_checkpoint
from utils.errors import CheckpointError, ConfigError, DataError

FIVE = ["week", "hour", "lat", "lon", "sun_elevation"]
NUMBERS = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
WHEN, PLACE = "2017-06-13T10:10:31", {"lat": 48.2, "lon": 16.4}


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Trained by the command for a step or two."""
    folder = tmp_path_factory.mktemp("five")
    config = training_config(folder, patches=4, epochs=1)
    assert train(config, "--set", f"model.meta_fields=[{','.join(FIVE)}]") == 0
    return folder / "run" / "pretrained_XXS_best.pth"


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    path = tmp_path_factory.mktemp("four") / "four.pth"
    write_checkpoint(path, build_model("XXS", seed=0, **NUMBERS), epoch=0, best_train_loss=0.0)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return some_numbers((40, 40))


def embed_config(folder, checkpoint, dataset_path, **model):
    (folder / "some.csv").write_text("\n".join(sample_ids(5)))
    return write_config(
        folder / "embed.yaml",
        model={"checkpoint_path": str(checkpoint), "device": "cpu", **model},
        data={"dataset_path": str(dataset_path), "splits": {"train": str(folder / "some.csv")}},
        embed={"pool": "all", "out_dir": str(folder / "out"), "name": "e"},
    )


def vectors(folder) -> np.ndarray:
    with np.load(folder / "out" / "e_train.npz") as arrays:
        return arrays["x_train"]


def test_files_and_pack_give_the_same_embeddings_for_both(tmp_path, five, four) -> None:
    csv = tmp_path / "some.csv"
    csv.write_text("\n".join(sample_ids(5)))
    packed = pack(tmp_path / "pack", SAMPLE, [str(csv)])
    for name, checkpoint, tokens in (("five", five, 106), ("four", four, 105)):
        found = []
        for source in (SAMPLE, packed):
            folder = tmp_path / f"{name}_{source.name}"
            folder.mkdir()
            assert embed.compute_embed.main(["--config_yaml", str(embed_config(folder, checkpoint, source))]) == 0
            found.append(vectors(folder))
        assert found[0].shape == (5, tokens * 24) and np.array_equal(*found)


def test_the_dataset_gives_what_the_model_asks_for(five) -> None:
    csv = SAMPLE / "bigearthnet-test.csv"
    batch = BigEarthNetDatasetLS(SAMPLE, csv, meta_fields=FIVE).batch([0, 1])
    assert batch.meta.shape == (2, 5, 2)
    assert torch.equal(batch.meta[:, :4], BigEarthNetDatasetLS(SAMPLE, csv).batch([0, 1]).meta)
    sines = batch.meta[:, 4, 0]
    assert (sines > 0).all(), "the sun is up when Landsat passes"
    assert load_model(five).encode(batch.images, batch.meta).meta.shape == (2, 5, 24)


def test_embed_derives_the_field_or_takes_it_as_stated(five, four, pixels) -> None:
    model, other = MOEMAE.from_pretrained(five), MOEMAE.from_pretrained(four)
    derived = model.embed(pixels, when=WHEN, **PLACE)
    stated = {"sun_elevation": 12.0}
    assert not np.allclose(derived, model.embed(pixels, when=WHEN, **PLACE, metadata=stated))
    assert not np.allclose(model.embed(pixels), model.embed(pixels, metadata=stated))
    untouched = other.embed(pixels, when=WHEN, **PLACE, metadata=stated)
    np.testing.assert_array_equal(untouched, other.embed(pixels, when=WHEN, **PLACE))
    both = model.embed(np.stack([pixels] * 2), metadata={"sun_elevation": [12.0, np.nan]})
    assert np.isfinite(both).all() and not np.allclose(*both)


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({"moon": 1.0}, "unknown field 'moon'"),
        ({"sun_elevation": 91.0}, "outside -90 to 90"),
        ({"sun_elevation": [1.0, 2.0]}, "2 values for 1 patches"),
        ({"sun_elevation": "high"}, "'high' is no number"),
    ],
)
def test_what_cannot_be_stated_is_refused(five, pixels, stated, problem) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        MOEMAE.from_pretrained(five).embed(pixels, metadata=stated)
    assert "\n" not in str(caught.value)


@pytest.mark.programs
def test_exported_programs_take_the_model_s_own_columns(tmp_path, five) -> None:
    for package in ("safetensors", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    import onnxruntime

    folder = tmp_path / "release"
    assert export.main(["--checkpoint", str(five), "--out", str(folder)]) == 0  # compares with the model itself
    about = json.loads((folder / "config.json").read_text())
    assert about["inputs"]["metadata"]["columns"] == FIVE and about["model"]["meta_fields"] == FIVE
    session = onnxruntime.InferenceSession(folder / "embed_cls.onnx")
    pixels = some_numbers((40, 40))[None].astype(np.int32)
    metadata = np.array([[24, 10, 48.2, 16.4, 55.0]], np.float32)
    found = session.run(None, {"pixels": pixels, "metadata": metadata})[0]
    model = MOEMAE.from_pretrained(folder)
    expected = model.embed(pixels, when=WHEN, **PLACE, metadata={"sun_elevation": 55.0})
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.runs
def test_a_scene_s_mtl_states_it(tmp_path, five, four) -> None:
    folder = write_product(tmp_path / "scene", some_numbers())
    mtl = folder / f"{PRODUCT}_MTL.json"
    plain = mtl.read_text()
    made = {}
    for name, text in (
        ("derived", plain),
        ("stated", plain.replace('"DATE_ACQUIRED"', '"SUN_ELEVATION": "12.5", "DATE_ACQUIRED"')),
    ):
        mtl.write_text(text)
        for checkpoint in (five, four):
            out = tmp_path / f"{name}_{checkpoint.stem}"
            arguments = ["--scene", str(folder), "--checkpoint", str(checkpoint), "--out", str(out)]
            assert embed_scene.main(arguments) == 0
            made[name, checkpoint] = (out / "embeddings.tif").read_bytes(), json.loads((out / "scene.json").read_text())
    assert made["stated", five][1]["metadata"]["sun_elevation"] == 12.5
    assert "sun_elevation" not in made["stated", four][1]["metadata"]
    assert made["stated", five][0] != made["derived", five][0]


def test_an_impossible_value_in_the_mtl_is_one_line(tmp_path, five) -> None:
    folder = write_product(tmp_path / "scene", some_numbers())
    mtl = folder / f"{PRODUCT}_MTL.json"
    mtl.write_text(mtl.read_text().replace('"DATE_ACQUIRED"', '"SUN_ELEVATION": "noon", "DATE_ACQUIRED"'))
    with pytest.raises(DataError, match="SUN_ELEVATION is 'noon'") as caught:
        embed_scene.main(["--scene", str(folder), "--checkpoint", str(five), "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)


def test_a_config_that_asks_for_other_fields_than_the_checkpoint_s_is_refused(tmp_path, five) -> None:
    config = embed_config(tmp_path, five, SAMPLE, meta_fields=["week", "hour"])
    with pytest.raises(CheckpointError, match=r"sun_elevation\], not \[week, hour\]"):
        embed.compute_embed.main(["--config_yaml", str(config)])


def test_an_unknown_field_in_a_config_is_named(tmp_path) -> None:
    config = training_config(tmp_path, patches=4, epochs=1)
    with pytest.raises(ConfigError, match=r"model\.meta_fields"):
        train(config, "--set", "model.meta_fields=[week,moon]")
