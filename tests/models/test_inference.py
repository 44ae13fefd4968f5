"""`model.embed`: the same numbers as the script's, whatever the patches come in, and refusals with their cures."""

import warnings

import embed_input
import numpy as np
import pytest
import rasterio.warp
import torch
from conftest import ROOT, SAMPLE
from tiny import sample_ids, write_config
from tiny_weights import tiny_model

from embed.compute_embed import main
from models import MOEMAE
from models.pooling import POOLINGS, vector_width
from utils.data_utils import parse_patch_id
from utils.errors import ConfigError, DataError
from utils.sensors import OLI

WEIGHTS = ROOT / "weights" / "moe_mae_simulated" / "pretrained_XXS_best.pth"
BATCH = 3

model, patches = embed_input.model, embed_input.patches


def read_files(paths) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Pixels of GeoTIFFs of any size, and the latitude and longitude of their centres."""
    pixels, lat, lon = [], [], []
    for path in paths:
        with rasterio.open(path) as file:
            pixels.append(file.read())
            grid = file.transform
            x, y = grid.c + grid.a * file.width / 2, grid.f + grid.e * file.height / 2
            place = rasterio.warp.transform(file.crs, "EPSG:4326", [x], [y]) if file.crs else ([0.0], [0.0])
        lon.append(place[0][0])
        lat.append(place[1][0])
    return pixels, np.array(lat), np.array(lon)


def embedding_file(folder, checkpoint, ids, **data) -> np.ndarray:
    """What the script writes for some patches."""
    folder.mkdir(exist_ok=True)
    (folder / "some.csv").write_text("\n".join(ids))
    config = write_config(
        folder / "embed.yaml",
        model={"checkpoint_path": str(checkpoint), "device": "cpu"},
        data={"splits": {"some": str(folder / "some.csv")}, "batch_size": BATCH, **data},
        embed={"pool": "mean", "out_dir": str(folder), "name": "e"},
    )
    assert main(["--config_yaml", str(config)]) == 0
    return np.load(folder / "e_some.npz")["x_some"]


# --------------------------------------------------------------------------- the same numbers


def test_equal_to_the_file_of_bigearthnet_patches(tmp_path) -> None:
    ids = sample_ids(7)
    pixels, lat, lon = read_files([SAMPLE / "images" / f"{name}.tif" for name in ids])
    assert len({one.shape for one in pixels}) > 1, "patches of several sizes belong to this test"
    when = [parse_patch_id(name).when for name in ids]
    found = MOEMAE.from_pretrained(WEIGHTS).embed(pixels, when=when, lat=lat, lon=lon, pool="mean", batch_size=BATCH)
    np.testing.assert_array_equal(found, embedding_file(tmp_path / "e", WEIGHTS, ids, dataset_path=str(SAMPLE)))


def test_equal_to_the_file_of_eurosat_patches(tmp_path) -> None:
    folder = ROOT / "sample_dataset" / "eurosat-l-sample"
    ids = (folder / "eurosat-test.txt").read_text().split()[:5]
    names = [name.removesuffix(".jpg") for name in ids]
    pixels, _, _ = read_files([folder / "eurosat-l" / name.rpartition("_")[0] / f"{name}.tif" for name in names])
    assert pixels[0].shape[0] == 8
    found = MOEMAE.from_pretrained(WEIGHTS).embed(
        pixels, bands=(*OLI.bands, "ST_B10"), crop="resize", statistics="eurosat_ls", pool="mean", batch_size=BATCH
    )
    expected = embedding_file(tmp_path / "e", WEIGHTS, ids, dataset="eurosat_ls", dataset_path=str(folder))
    np.testing.assert_array_equal(found, expected)


def test_equal_to_the_file_of_real_patches_as_published(tmp_path, reference_dir, real_patches) -> None:
    """Fill as data and the first digit of the hour, which only six-digit times tell."""
    checkpoint = reference_dir / "reference" / "published_layout_S.pth"
    ids = [path.stem for path in sorted((real_patches / "images").iterdir())]
    ids = [name for name in ids if len(parse_patch_id(name).time_text) == 6][:BATCH]
    pixels, lat, lon = read_files([real_patches / "images" / f"{name}.tif" for name in ids])
    expected = embedding_file(tmp_path / "e", checkpoint, ids, dataset_path=str(real_patches), missing_labels="skip")
    when = [parse_patch_id(name).when for name in ids]
    found = MOEMAE.from_pretrained(checkpoint).embed(pixels, when=when, lat=lat, lon=lon, pool="mean")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pool", POOLINGS)
def test_pools_and_batches(model, patches, pool: str) -> None:
    whole = model.embed(patches, pool=pool)
    assert whole.dtype == np.float32
    assert whole.shape == (3, vector_width(model.config, pool))
    np.testing.assert_allclose(model.embed(patches, pool=pool, batch_size=2), whole, atol=1e-5)
    np.testing.assert_allclose(model.embed(patches[1], pool=pool), whole[1], atol=1e-5)
    assert model.embed(patches[:0], pool=pool).shape == (0, whole.shape[1])


def test_a_model_in_training_stays_in_training(patches) -> None:
    model = tiny_model().train()
    first = model.embed(patches)
    assert model.training
    np.testing.assert_array_equal(first, model.embed(patches))  # neither noise nor dropout


# --------------------------------------------------------------------------- kinds of input


def test_torch_for_torch(model, patches) -> None:
    expected = model.embed(patches)
    for dtype in (torch.uint16, torch.int32, torch.int64, torch.float32):
        found = model.embed(torch.from_numpy(patches.astype(np.int64)).to(dtype))
        assert isinstance(found, torch.Tensor) and not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), expected)


def test_a_torchgeo_sample(model, patches) -> None:
    sample = {"image": torch.from_numpy(patches.astype(np.float32)), "label": torch.tensor([1, 2, 0])}
    found = model.embed(sample, when="2017-06-13")
    assert list(found) == ["image", "label", "embedding"]
    assert found["image"] is sample["image"] and found["label"] is sample["label"]
    assert "embedding" not in sample
    np.testing.assert_array_equal(found["embedding"].numpy(), model.embed(patches, when="2017-06-13"))
    assert model.embed({"image": sample["image"][0]})["embedding"].shape == (24,)


def test_xarray_for_xarray(model, patches) -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    times = np.array(["2017-06-13T10", "2017-07-13T10", "2017-08-13T10"], "M8[ns]")
    coords = {"time": times, "band": list(OLI.bands), "spatial_ref": 32633}
    cube = xarray.DataArray(patches, dims=("time", "band", "y", "x"), coords=coords)
    expected = model.embed(patches, when=times)
    shuffled = cube.isel(band=[3, 1, 0, 2, 6, 5, 4]).transpose("y", "band", "x", "time")
    found = model.embed(shuffled, when=cube.time)
    assert found.dims == ("time", "embedding")
    assert (found.time.values == times).all() and found.spatial_ref == 32633
    np.testing.assert_array_equal(found.values, expected)
    one = model.embed(cube.to_dataset("band").isel(time=0))  # a variable a band, as catalogues give it
    assert one.dims == ("embedding",)
    np.testing.assert_allclose(one.values, model.embed(patches[0], when=times[0]), atol=1e-5)
    filled = cube.astype(np.int32).where(cube.x != 3, -9999).assign_attrs(_FillValue=-9999)
    masked = cube.astype(np.float64).where(cube.x != 3)
    np.testing.assert_array_equal(model.embed(filled).values, model.embed(masked).values)
    for wrong, named in ((cube.rename(band="b"), "no band dimension"), (cube.expand_dims("tile"), "stack the others")):
        with pytest.raises(DataError, match=named):
            model.embed(wrong)


# --------------------------------------------------------------------------- bands, numbers, fill, sizes


def test_bands_by_name(model, patches) -> None:
    expected = model.embed(patches)
    order = [6, 0, 5, 1, 4, 2, 3]
    named = [OLI.bands[i] for i in order]
    np.testing.assert_array_equal(model.embed(patches[:, order], bands=named), expected)
    np.testing.assert_array_equal(model.embed(patches[:, order], bands=[f"b{i + 1}" for i in order]), expected)
    common = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11")
    more = np.concatenate([patches, np.full_like(patches[:, :1], 40_000)], axis=1)
    np.testing.assert_array_equal(model.embed(more, bands=common), expected)


@pytest.mark.parametrize(
    ("bands", "named"),
    [
        (None, r"8 bands.*bands=\('SR_B1'"),
        (OLI.bands, "7 names for 8 bands"),
        ((*OLI.bands[:6], "SR_B6", "ST_B10"), "SR_B6 is named twice"),
        ("SR_B1", "are no names"),
        (range(1, 9), "are no names"),
        (("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A"), "Sentinel-2's, and other sensors"),
        (tuple("hijklmno"), "none of h, i, .* is one of Landsat's; name one"),
        (
            ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B6", "SR_B7", "QA"),
            "may be all of Landsat 7's.*sensor='etm'",
        ),
    ],
)
def test_other_bands_are_refused(model, patches, bands, named: str) -> None:
    with pytest.raises(DataError, match=named):
        model.embed(np.concatenate([patches, patches[:, :1]], axis=1), bands=bands)


def test_bands_last_are_refused(model, patches) -> None:
    with pytest.raises(DataError, match=r"bands last; use np\.moveaxis"):
        model.embed(np.moveaxis(patches, 1, -1))


def reflectance(patches: np.ndarray) -> np.ndarray:
    return patches * 0.0000275 - 0.2


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (reflectance, r"reflectance or normalised.*scale=\(1, 0\)"),
        (lambda p: (p / 255).astype(np.uint8), "reflectance 0 in Collection-2"),
        (lambda p: (reflectance(p) * 10_000).astype(np.int16), "reflectance 0 in Collection-2"),
        (lambda p: p.astype(np.float32) * 10, "digital numbers are 0 to 65535"),
        (lambda p: p.astype(np.int32) - 10_000 * (p > 15_000), None),
        (lambda p: np.where(p > 19_990, -9999, p.astype(np.int32)), "hold -9999 to.*set fill to 0"),
        (lambda p: p > 10_000, "hold bool values"),
        (lambda p: p.astype(str), "hold <U5 values"),
        (lambda p: p[..., :30], '41 x 30 pixels, at least 40.*crop="resize"'),
        (lambda p: p[..., :3], "41 x 3 pixels, at least 40.*give larger"),
        (lambda p: p.repeat(2, axis=-1), "41 x 86 pixels are a scene.*embed_scene.py"),
        (lambda p: p[0, 0], r"shape \(41, 43\)"),
        (lambda p: [p], r"a list holds patches of shape \(bands"),
        (lambda p: [p[0], p[1, :6]], "of 7 and of 6 bands"),
        (lambda p: "a.tif", "hold <U5 values"),
    ],
)
def test_wrong_pixels_are_refused_with_the_cure(model, patches, wrong, named) -> None:
    if named is None:
        assert np.isfinite(model.embed(wrong(patches))).all()
        return
    with pytest.raises(DataError, match=named) as caught:
        model.embed(wrong(patches))
    assert "\n" not in str(caught.value)


def test_every_real_patch_is_accepted(real_patches) -> None:
    from models.inference.digital_numbers import LandsatPatches
    from models.inference.patch_input import read_input

    config = tiny_model().config
    pixels, _, _ = read_files(sorted((real_patches / "images").iterdir()))
    for one in pixels:
        LandsatPatches.of(read_input(one), config, None, "center", None)


def test_a_stated_scale(model, patches) -> None:
    expected = model.embed(patches)
    np.testing.assert_array_equal(model.embed(reflectance(patches), scale=(1, 0)), expected)
    tens = np.rint(reflectance(patches.astype(np.float64)) * 1e7).astype(np.int64)
    np.testing.assert_array_equal(model.embed(tens, scale=(1e-7, 0)), expected)
    np.testing.assert_array_equal(model.embed(patches, scale=(0.0000275, -0.2)), expected)
    dark = np.full_like(patches, 4_000)  # nothing on the ground is; whoever says so is believed
    assert np.isfinite(model.embed(dark, scale=(0.0000275, -0.2))).all()


def test_fill(model, patches) -> None:
    filled = patches.copy()
    filled[:, :, :12] = 0
    nans = filled.astype(np.float32)
    nans[:, 2, :12] = np.nan  # one band without a number is enough
    np.testing.assert_array_equal(model.embed(nans), model.embed(filled))
    assert not np.array_equal(model.embed(filled), model.embed(patches))
    filled[1] = 0
    with pytest.warns(UserWarning, match="1 of 3 patches have no valid pixel"):
        rows = model.embed(filled)
    assert np.isnan(rows[1]).all() and np.isfinite(rows[[0, 2]]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(tiny_model(published_behaviour=True).embed(filled)).all()


def test_a_dict_without_pixels(model, patches) -> None:
    with pytest.raises(DataError, match=r"without 'image'.*img"):
        model.embed({"img": patches})


def test_numbered_bands_of_xarray(model, patches) -> None:
    xarray = pytest.importorskip("xarray")
    upside_down = xarray.DataArray(patches[0][::-1], dims=("band", "y", "x"), coords={"band": np.arange(7, 0, -1)})
    assert np.array_equal(model.embed(upside_down), model.embed(patches[0]))


def test_options(model, patches) -> None:
    scales = [{"scale": scale} for scale in (1, (1,), ("a", "b"), (0, 1), (float("nan"), 0), (1, float("inf")))]
    batches = [{"batch_size": size} for size in (0, 1.5, "many")]
    for option in ({"pool": "max"}, {"crop": "left"}, {"statistics": "mine"}, *batches, *scales):
        with pytest.raises(ConfigError, match=next(iter(option))):
            model.embed(patches, **option)
    with pytest.raises(ConfigError, match="takes 4 bands"):
        tiny_model(in_channels=4).embed(patches[:, :4])
