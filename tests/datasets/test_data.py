"""Datasets: layout, crops, metadata, fill, labels; and everything a file can get wrong."""

import math

import numpy as np
import pytest
import rasterio
import torch
from tiny import sample_ids, some_pixels, write_bigearthnet, write_tif

from datasets.bigearthnet import BigEarthNetDatasetLS, patch_columns, read_labels
from datasets.eurosat import EuroSATDatasetLS
from datasets.loader import build_dataset
from transformation.transformer import ZScoreNormalize, center_crop, resize
from utils.data_config import BigEarthNetInfo, EuroSATInfo
from utils.data_utils import parse_patch_id
from utils.errors import DataError
from utils.metadata import encode_metadata

IDS = ["S2A_MSIL2A_20170613T101031_11_66", "S2B_MSIL2A_20170905T95032_1_2", "S2A_MSIL2A_20171221T112501_76_4"]


@pytest.mark.parametrize(
    ("patch_id", "week", "hour", "published_hour"),
    [
        ("S2A_MSIL2A_20170613T101031_11_66", 24, 10, 1),
        ("S2B_MSIL2A_20170905T95032_1_2", 36, 9, 9),
        ("S2B_MSIL2A_20170905T095032_1_2", 36, 9, 0),
        ("S2A_MSIL2A_20180101T112501_76_4", 1, 11, 1),
        ("S2A_MSIL2A_20171231T112501_76_4", 52, 11, 1),
    ],
)
def test_metadata_of_named_ids(patch_id: str, week: int, hour: int, published_hour: int) -> None:
    time = parse_patch_id(patch_id)
    for published, expected in ((False, hour), (True, published_hour)):
        columns = patch_columns([time], [63.0], [-21.0], published)
        rows = encode_metadata(columns, published_behaviour=published)
        angles = (week * 2 * math.pi / 52, expected * 2 * math.pi / 24, math.radians(63.0), math.radians(-21.0))
        assert rows.shape == (1, 4, 2)
        np.testing.assert_allclose(rows[0], [[math.sin(a), math.cos(a)] for a in angles], atol=1e-6)


@pytest.mark.parametrize(
    "patch_id", ["", "x", "S2A_MSIL2A_20171331T101031_1_1", "S2A_MSIL2A_20170613T251031_1_1", "../a"]
)
def test_unreadable_ids(patch_id: str) -> None:
    with pytest.raises(DataError, match="patch id"):
        parse_patch_id(patch_id)


def test_a_sample(sample) -> None:
    dataset = BigEarthNetDatasetLS(sample, "bigearthnet-test.csv", labels="error")
    item = dataset[2]
    assert item.image.shape == (7, 40, 40)
    assert item.image.dtype == torch.float32
    assert item.meta.shape == (4, 2)
    assert item.valid.shape == (40, 40)
    assert item.label.shape == (19,)
    assert item.id == dataset.ids[2]
    assert len(dataset) == 64
    with rasterio.open(dataset.path_of(2)) as file:
        pixels = file.read().astype(np.float32)
    top, left = (pixels.shape[1] - 40) // 2, (pixels.shape[2] - 40) // 2
    window = pixels[:, top : top + 40, left : left + 40]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in BigEarthNetInfo.STATISTICS)
    expected = (window - mean) / std * (window != 0).all(0)
    np.testing.assert_allclose(item.image.numpy(), expected, atol=1e-5)


def test_place_is_the_patch_centre(tmp_path) -> None:
    """43 pixels of 30 m from a known UTM corner: the centre lies on the zone's central meridian."""
    write_tif(tmp_path / "images" / f"{IDS[0]}.tif", some_pixels(), origin=(500_000.0 - 645.0, 5_500_000.0 + 645.0))
    (tmp_path / "s.csv").write_text(IDS[0])
    meta = BigEarthNetDatasetLS(tmp_path, "s.csv")[0].meta
    lat, lon = torch.atan2(meta[2, 0], meta[2, 1]), torch.atan2(meta[3, 0], meta[3, 1])
    assert math.degrees(lon.item()) == pytest.approx(15.0, abs=1e-5)
    assert math.degrees(lat.item()) == pytest.approx(49.6529, abs=1e-3)


def test_the_reference_inputs(real_patches, reference_dir) -> None:
    """Crops, normalisation and metadata of eight real patches, exactly as the published code gives them."""
    arrays = np.load(reference_dir / "reference" / "published_layout_S_outputs.npz")
    dataset = BigEarthNetDatasetLS(real_patches, "samples.csv", published_behaviour=True)
    batch = dataset.batch(range(8))
    assert batch.ids == arrays["ids"].tolist()
    np.testing.assert_allclose(batch.images.numpy(), arrays["images"], atol=1e-5)
    for row, field in enumerate(("week", "hour", "lat", "lon")):
        np.testing.assert_allclose(batch.meta[:, row].numpy(), arrays[f"meta_{field}"], atol=1e-6)
    assert len(dataset) == 120


def test_first_line_is_a_header_only_if_it_is_zero(tmp_path) -> None:
    write_bigearthnet(tmp_path, dict.fromkeys(IDS, some_pixels()))
    assert len(BigEarthNetDatasetLS(tmp_path, "split.csv")) == 3
    (tmp_path / "header.csv").write_text("0\n" + "\n".join(f"{name},x" for name in IDS))
    assert BigEarthNetDatasetLS(tmp_path, tmp_path / "header.csv").ids == IDS


def test_center_crop_and_resize_by_hand() -> None:
    pixels = some_pixels(shape=(7, 43, 45))
    assert np.array_equal(center_crop(pixels, 40), pixels[:, 1:41, 2:42])
    flat = np.full((7, 43, 45), 9_999, np.uint16)
    assert (resize(flat, 40) == 9_999).all()
    ramp = np.broadcast_to(np.arange(22, dtype=np.uint16)[None, None] * 100 + 5_000, (7, 22, 22)).copy()
    larger = resize(ramp, 40)
    assert larger.shape == (7, 40, 40)
    expected = ((np.arange(40) + 0.5) * 22 / 40 - 0.5).clip(0, 21) * 100 + 5_000
    np.testing.assert_allclose(larger[0, 0], expected, atol=0.51)
    assert np.array_equal(resize(ramp, 40, published_behaviour=True)[0, 0], np.floor(expected + 1e-3))


def test_resized_fill_does_not_bleed() -> None:
    pixels = some_pixels(shape=(7, 45, 45))
    pixels[:, :20] = 0
    resized = resize(pixels, 40)
    data = resized[:, (resized != 0).any(0).any(1)]
    assert data.min() >= 6_900
    assert resize(pixels, 40, published_behaviour=True).astype(int)[:, 17].min() < 6_000


def test_fill_is_zero_and_invalid_unless_published(tmp_path) -> None:
    pixels = some_pixels()
    pixels[:, 1:4] = 0
    pixels[0, 30] = 0  # no number of Collection 2 in one band: nothing is known there
    write_bigearthnet(tmp_path, {IDS[0]: pixels})
    item = BigEarthNetDatasetLS(tmp_path, "split.csv")[0]
    hidden = [0, 1, 2, 29]
    assert not item.valid[hidden].any()
    assert item.valid.sum() == 36 * 40
    seen = item.image[:, 3].unflatten(1, (10, 4)).mean(dim=-1).repeat_interleave(4, 1)  # of every square of 4 x 4
    torch.testing.assert_close(item.image[:, :3], seen[:, None].expand(-1, 3, -1))
    published = BigEarthNetDatasetLS(tmp_path, "split.csv", published_behaviour=True)[0]
    assert published.valid.all()
    expected = -BigEarthNetInfo.STATISTICS.mean[0] / BigEarthNetInfo.STATISTICS.std[0]
    assert published.image[0, 0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_normalisation_inverts() -> None:
    normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    pixels = torch.from_numpy(some_pixels(shape=(7, 40, 40)))
    torch.testing.assert_close(normalize.invert(normalize(pixels[None]).images)[0], pixels.float(), atol=0.01, rtol=0)


def test_labels(tmp_path) -> None:
    names = ["Discontinuous urban fabric", "Continuous urban fabric", "Airports", "Sea and ocean"]
    write_bigearthnet(tmp_path, {IDS[0]: some_pixels()}, {IDS[0]: names})
    path = tmp_path / "labels" / f"{IDS[0]}_labels_metadata.json"
    assert read_labels(path).nonzero().flatten().tolist() == [0, 18]
    assert read_labels(path, all_classes=True).nonzero().flatten().tolist() == [0, 1, 5, 42]
    dataset = BigEarthNetDatasetLS(tmp_path, "split.csv", labels="error", all_classes=True)
    assert dataset.labels.shape == (1, 43)


def test_every_corine_class_maps_as_landsat_bench_says() -> None:
    corine, classes = BigEarthNetInfo.CORINE, BigEarthNetInfo.CLASSES
    mapped = {corine[i]: classes[c] for i, c in BigEarthNetInfo.CORINE_TO_CLASS.items()}
    assert len(mapped) == 32
    assert mapped["Rice fields"] == "Arable land"
    assert mapped["Annual crops associated with permanent crops"] == "Permanent crops"
    assert mapped["Sparsely vegetated areas"] == "Natural grassland and sparsely vegetated areas"
    assert mapped["Peatbogs"] == "Inland wetlands"
    assert not {"Airports", "Bare rock", "Burnt areas", "Intertidal flats"} & set(mapped)


def test_missing_labels(tmp_path) -> None:
    write_bigearthnet(tmp_path, dict.fromkeys(IDS, some_pixels()), {IDS[1]: ["Pastures"]})
    assert len(BigEarthNetDatasetLS(tmp_path, "split.csv")) == 3
    with pytest.raises(DataError, match=rf"2 patches have no label file \({IDS[0]}, {IDS[2]}\).*missing_labels: skip"):
        BigEarthNetDatasetLS(tmp_path, "split.csv", labels="error")
    dataset = BigEarthNetDatasetLS(tmp_path, "split.csv", labels="skip")
    assert dataset.ids == [IDS[1]]
    assert dataset.skipped_labels == [IDS[0], IDS[2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"labels": ["Moon rock"]}', "unknown label 'Moon rock'"),
        ("[]", "not a label file"),
        ('{"x": 1}', "not a label file"),
        ("{", "not a label file"),
        ('{"labels": 3}', "not a label file"),
    ],
)
def test_bad_label_files(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "x_labels_metadata.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_labels(path)
    assert "x_labels_metadata.json" in str(caught.value)


BAD_FILES = {
    "bands": (lambda path: write_tif(path, some_pixels(shape=(6, 43, 43))), "has 6 bands, expected 7"),
    "float": (lambda path: write_tif(path, some_pixels().astype(np.float32)), "float32 values, expected uint16"),
    "small": (lambda path: write_tif(path, some_pixels(shape=(7, 39, 43))), "39 x 43 pixels, at least 40"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5_000]), "truncated or not a GeoTIFF"),
    "text": (lambda path: path.write_text("hello"), "truncated or not a GeoTIFF"),
    "no crs": (lambda path: write_tif(path, some_pixels(), crs=None), "no usable coordinate reference system"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_geotiffs_are_named(tmp_path, kind: str) -> None:
    write_bigearthnet(tmp_path, dict.fromkeys(IDS, some_pixels()))
    spoil, message = BAD_FILES[kind]
    spoil(tmp_path / "images" / f"{IDS[1]}.tif")
    dataset = BigEarthNetDatasetLS(tmp_path, "split.csv")
    with pytest.raises(DataError, match=message) as caught:
        dataset.batch([0, 1, 2])
    assert f"{IDS[1]}.tif" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_off_the_globe(tmp_path) -> None:
    write_bigearthnet(tmp_path, {IDS[0]: some_pixels()})
    local = rasterio.CRS.from_wkt('LOCAL_CS["somewhere",UNIT["metre",1]]')
    write_tif(tmp_path / "images" / f"{IDS[0]}.tif", some_pixels(), crs=local)
    with pytest.raises(DataError, match=f"{IDS[0]}.tif"):
        BigEarthNetDatasetLS(tmp_path, "split.csv")[0]


def test_simulated_folders_say_so(sample, tmp_path) -> None:
    assert BigEarthNetDatasetLS(sample, "bigearthnet-val.csv").kind == "simulated patches"
    assert EuroSATDatasetLS(sample.parent / "eurosat-l-sample", "eurosat-val.txt").simulated
    write_bigearthnet(tmp_path, {IDS[0]: some_pixels()})
    assert BigEarthNetDatasetLS(tmp_path, "split.csv").kind == "patches"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lists no patches"),
        ("0\n", "lists no patches"),
        (f"{IDS[0]}\n{IDS[1]}\n{IDS[0]}\n", f"lists 1 patches twice: {IDS[0]}"),
        ("../../etc/passwd\n", "paths instead of patch names"),
        ("hello\n", "patch id 'hello' cannot be read"),
        (f"{IDS[2]}\nS2A_MSIL2A_20170613T101031_9_9\n", "1 of 2 files are missing: S2A_MSIL2A_20170613T101031_9_9.tif"),
    ],
)
def test_bad_split_files(tmp_path, lines: str, message: str) -> None:
    write_bigearthnet(tmp_path, dict.fromkeys(IDS, some_pixels()))
    (tmp_path / "bad.csv").write_text(lines)
    with pytest.raises(DataError, match=message):
        BigEarthNetDatasetLS(tmp_path, tmp_path / "bad.csv")


def test_missing_folders_and_split(tmp_path, sample) -> None:
    with pytest.raises(DataError, match="no such folder"):
        BigEarthNetDatasetLS(tmp_path / "nowhere", "x.csv")
    with pytest.raises(DataError, match="cannot read the split file"):
        BigEarthNetDatasetLS(sample, "absent.csv")
    (tmp_path / "s.csv").write_text(IDS[0])
    with pytest.raises(DataError, match="images: cannot list the folder"):
        BigEarthNetDatasetLS(tmp_path, "s.csv")


def write_eurosat(root, sizes: dict[str, tuple[int, int, int]]) -> None:
    for name, shape in sizes.items():
        write_tif(root / name.rpartition("_")[0] / f"{name}.tif", some_pixels(shape=shape))
    (root / "split.txt").write_text("".join(f"{name}.jpg\n" for name in sizes))


def test_eurosat(tmp_path) -> None:
    write_eurosat(tmp_path, {"AnnualCrop_1": (8, 22, 22), "SeaLake_20": (8, 22, 23)})
    dataset = EuroSATDatasetLS(tmp_path, "split.txt")
    item = dataset[1]
    assert item.image.shape == (7, 40, 40)
    assert item.meta is None
    assert item.label.item() == 9
    assert dataset.labels.tolist() == [0, 9]
    own = EuroSATInfo.STATISTICS
    assert dataset.normalize.mean.flatten().tolist() == pytest.approx(own.mean)
    published = EuroSATDatasetLS(tmp_path, "split.txt", published_behaviour=True)
    assert published.normalize.mean.flatten().tolist() == pytest.approx(BigEarthNetInfo.STATISTICS.mean)
    chosen = build_dataset("eurosat_ls", str(tmp_path), "split.txt", image_size=40, statistics="bigearthnet_ls")
    assert chosen.normalize.mean.flatten().tolist() == pytest.approx(BigEarthNetInfo.STATISTICS.mean)


def test_unmatched_eurosat_entries_are_listed(tmp_path) -> None:
    write_eurosat(tmp_path, {"AnnualCrop_1": (8, 22, 22)})
    (tmp_path / "twice.txt").write_text("AnnualCrop_1.jpg\nAnnualCrop_1.tif\n")
    with pytest.raises(DataError, match="twice: AnnualCrop_1"):
        EuroSATDatasetLS(tmp_path, "twice.txt")
    (tmp_path / "bad.txt").write_text("AnnualCrop_1.jpg\nForest_7.jpg\nMoon_2.jpg\n")
    with pytest.raises(DataError, match=r"2 of 3 entries match no file .*: Forest_7, Moon_2"):
        EuroSATDatasetLS(tmp_path, "bad.txt")
    write_eurosat(tmp_path, {"AnnualCrop_1": (7, 22, 22)})
    with pytest.raises(DataError, match="has 7 bands, expected 8"):
        EuroSATDatasetLS(tmp_path, "split.txt")[0]


def test_fingerprint_follows_the_data_only(tmp_path) -> None:
    patches = dict.fromkeys(IDS, some_pixels())
    here, there = write_bigearthnet(tmp_path / "a", patches), write_bigearthnet(tmp_path / "b", patches)

    def fingerprint(root, **options) -> str:
        return BigEarthNetDatasetLS(root, "split.csv", **options).fingerprint()

    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(here, crop="resize")
    changed = some_pixels()
    changed[0, 0, 0] += 1
    write_tif(there / "images" / f"{IDS[0]}.tif", changed)
    assert fingerprint(here) != fingerprint(there)


def test_sample_ids_are_simulated_patches(sample) -> None:
    assert len(sample_ids(5)) == 5
    assert "simulated" in (sample / "README.md").read_text()


def test_the_published_resize_is_torchvision_on_stored_numbers() -> None:
    """Bilinear and antialiased on uint16, where torchvision truncates."""
    from torchvision.transforms.v2 import functional as tv

    for shape in ((7, 22, 22), (7, 45, 44)):
        pixels = some_pixels(shape=shape)
        theirs = tv.resize(torch.from_numpy(pixels), [40, 40], tv.InterpolationMode.BILINEAR, antialias=True)
        ours = resize(pixels, 40, published_behaviour=True)
        assert np.abs(ours.astype(int) - theirs.numpy().astype(int)).max() <= 1
        assert (ours == theirs.numpy()).mean() > 0.999
