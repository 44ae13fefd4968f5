"""What a scene's files say of themselves counts: ids, MTL, grids, companions, band names, scales, masks."""

import json

import numpy as np
import pytest
import rasterio
from scene_files import (
    CLEAR,
    CLOUD,
    ORIGIN,
    PRODUCT,
    embed,
    some_numbers,
    tiny_checkpoint,
    write_band,
    write_product,
)

from scenes import run
from scenes.input.checks import check_numbers
from scenes.input.metadata import find_product_id, parse_product_id
from scenes.input.mtl import read_mtl
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader
from scenes.row_store import RowStore
from utils.errors import ConfigError, DataError

SIDE = (60, 70)
NAMES = [f"SR_B{number}" for number in range(1, 8)]
HIDDEN = (slice(None), slice(0, 20))


def pixels_of(path, **options) -> np.ndarray:
    """Digital numbers of a whole scene, after all checks."""
    with SceneReader(find_scene(path, SceneOptions(**options))) as reader:
        check_numbers(reader)
        return reader.read(0, 0, *SIDE)


def refused(path, reason: str, **options) -> str:
    with pytest.raises((DataError, ConfigError), match=reason) as caught:
        pixels_of(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------- hidden


def with_fill(fill: float, bands: slice = slice(None), kind: type = np.uint16, factor: float = 1.0, add: float = 0.0):
    numbers = (some_numbers(SIDE) * factor + add).astype(kind)
    numbers[bands, :, :20] = fill
    return numbers


@pytest.mark.parametrize(
    ("numbers", "profile", "options"),
    [
        (with_fill(0, slice(3, 4)), {}, {}),
        (with_fill(65535), {"nodata": 65535}, {}),
        (with_fill(0, slice(3, 4)), {}, {"scale": (0.0000275, -0.2)}),
        (with_fill(-0.2, slice(0, 1), np.float32, 2.75e-5, -0.2), {}, {"scale": (1.0, 0.0)}),
        (with_fill(-9999, slice(2, 3), np.float32, 2.75e-5, -0.2), {}, {"scale": (1.0, 0.0)}),
        (with_fill(np.inf, slice(2, 3), np.float32, 2.75e-5, -0.2), {}, {"scale": (1.0, 0.0)}),
        (with_fill(np.nan, slice(6, 7), np.float64, 2.75e-5, -0.2), {"nodata": np.nan}, {"scale": (1.0, 0.0)}),
        (with_fill(-3.4e38, slice(6, 7), np.float32, 2.75e-5, -0.2), {"nodata": -3.4e38}, {"scale": (1.0, 0.0)}),
        (with_fill(-9999, slice(4, 5), np.int16, 0.275, -2000), {}, {"scale": (0.0001, 0.0)}),
        (with_fill(12345, slice(4, 5), np.int16, 0.275, -2000), {"nodata": 12345}, {"scale": (0.0001, 0.0)}),
    ],
)
def test_hidden_in_one_band_is_hidden_in_all(tmp_path, numbers, profile, options) -> None:
    pixels = pixels_of(write_band(tmp_path / "s.tif", numbers, **profile), **options)
    assert not pixels[:, :, :20].any() and (pixels[:, :, 20:] > 0).all()


@pytest.mark.parametrize("inside", [True, False])
def test_masks_of_a_file(tmp_path, inside) -> None:
    path = write_band(tmp_path / "s.tif", some_numbers(SIDE))
    mask = np.full(SIDE, 255, np.uint8)
    mask[HIDDEN] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    pixels = pixels_of(path)
    assert not pixels[:, :, :20].any() and (pixels[:, :, 20:] > 0).all()


def test_infinite_numbers_are_counted_once(tmp_path) -> None:
    path = write_band(tmp_path / "s.tif", with_fill(np.inf, slice(2, 3), np.float32, 2.75e-5, -0.2))
    with SceneReader(find_scene(path, SceneOptions(scale=(1.0, 0.0)))) as reader:
        for top in (0, 0, 20, 30):
            reader.read(top, 0, 40, SIDE[1])
        assert reader.without_number.counts() == {"s.tif": 20 * SIDE[0]}


@pytest.mark.runs
@pytest.mark.parametrize("stride", [20, 40])
def test_what_files_hide_without_a_word_is_said_by_file_also_of_rows_made_before(
    tmp_path, monkeypatch, capsys, stride
) -> None:
    """A run from the beginning, one that was interrupted, and one that finds its embeddings all say the same."""
    numbers = (some_numbers((130, 90)) * 2.75e-5 - 0.2).astype(np.float32)
    numbers[3, :50, :10], numbers[3, 100:, 0], numbers[5, 5, 5] = np.nan, np.inf, -np.inf
    folder = write_product(tmp_path / "scene", numbers)
    counted = {f"{PRODUCT}_SR_B4.TIF": 50 * 10 + 30, f"{PRODUCT}_SR_B6.TIF": 1}
    checkpoint, options = tiny_checkpoint(tmp_path / "m.pth"), ("--scale", "1,0", "--stride", stride)

    def says_all(out) -> None:
        embed(folder, checkpoint, out, *options)
        said = capsys.readouterr().out
        assert all(
            f"{name}: {count:,} pixels hold NaN or an infinite number" in said for name, count in counted.items()
        )
        assert said.count("pixels hold") == len(counted)
        assert json.loads((out / "scene.json").read_text())["without_number"] == counted

    append = RowStore.append

    def dying(self, record) -> None:
        if self.done == 2:
            raise KeyboardInterrupt
        append(self, record)

    def killed(*_) -> None:
        raise KeyboardInterrupt

    says_all(tmp_path / "whole")
    says_all(tmp_path / "whole")
    for place, name, ends in ((RowStore, "append", dying), (run, "write_embeddings", killed)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, ends)
            embed(folder, checkpoint, tmp_path / name, *options)
        says_all(tmp_path / name)
        whole = (tmp_path / "whole" / "embeddings.tif").read_bytes()
        assert (tmp_path / name / "embeddings.tif").read_bytes() == whole


def test_declared_nan_is_not_worth_a_word(tmp_path) -> None:
    path = write_band(tmp_path / "s.tif", with_fill(np.nan, slice(2, 3), np.float32, 2.75e-5, -0.2), nodata=np.nan)
    with SceneReader(find_scene(path, SceneOptions(scale=(1.0, 0.0)))) as reader:
        reader.read(0, 0, *SIDE)
        assert reader.without_number.counts() == {}


# --------------------------------------------------------------------------- place and size


def test_a_projection_without_a_geotransform_places_nothing(tmp_path) -> None:
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_band(tmp_path / "s.tif", some_numbers(SIDE), transform=rasterio.Affine.identity())
    scene = find_scene(path)
    assert scene.crs is None and not scene.grid.georeferenced
    assert any("latitude and longitude are given to the model as missing" in note for note in scene.notes)


@pytest.mark.parametrize(
    ("code", "origin", "size", "reason"),
    [
        (3857, (1_670_000, 6_100_000), 30, r"Mercator.*20\.1 m here.*EPSG:32633 -tr 30 30"),
        (3857, (1_670_000, 6_100_000), 44.8, r"Mercator"),
        (3395, (1_670_000, 6_100_000), 30, r"Mercator"),
        (3857, (-6_000_000, -2_000_000), 30, r"EPSG:32722"),
        (4326, (15.0, 48.0), 0.00027, r"degrees.*EPSG:32633"),
        (32633, (500_000, 5_300_000), 20, "20 m wide"),
    ],
)
def test_the_spacing_is_that_on_the_ground(tmp_path, code, origin, size, reason) -> None:
    crs = rasterio.CRS.from_epsg(code)
    refused(write_band(tmp_path / "s.tif", some_numbers(SIDE), origin, size, crs), rf"{reason}")


def test_equal_area_grids_of_30_m_are_30_m(tmp_path) -> None:
    pixels_of(
        write_band(tmp_path / "s.tif", some_numbers(SIDE), (-2_115_585, 2_564_805), crs=rasterio.CRS.from_epsg(5070))
    )


@pytest.mark.parametrize(("shift", "fits"), [(1e-10, True), (0.2, True), (-0.2, True), (1.0, False)])
def test_grids_are_compared_to_a_hundredth_of_a_pixel(tmp_path, shift, fits) -> None:
    folder = write_product(tmp_path / "p", some_numbers(SIDE))
    origin = (ORIGIN[0] + shift, ORIGIN[1])
    write_band(folder / f"{PRODUCT}_SR_B5.TIF", some_numbers(SIDE)[4:5], origin)
    write_band(folder / f"{PRODUCT}_QA_PIXEL.TIF", np.full((1, *SIDE), CLEAR, np.uint16), origin)
    if fits:
        pixels_of(folder)
    else:
        refused(folder, "georeference differs")


# --------------------------------------------------------------------------- ids and names

IDS = {
    "LC08_L2SP_190026_20190701_20200827_02_T1_SR_B1.TIF": "2019-07-01",
    "LC08_L2SP_190026_20190701_02_T1": "2019-07-01",
    "LC08_190026_20190701.SR_B3.tif": "2019-07-01",
    "1_2_LC09_190026_20220701": "2022-07-01",
    "lc08_cu_003010_20200701_20210504_02_SR_B1": "2020-07-01",
    "HLS.L30.T17SLU.2020209T155956.v2.0.B02.tif": "2020-07-27",
}


@pytest.mark.parametrize("text", IDS)
def test_one_parser_of_ids(text) -> None:
    found = find_product_id(text)
    assert found and str(parse_product_id(found).acquired.day) == IDS[text]


def test_a_name_with_two_ids_says_nothing() -> None:
    assert find_product_id("LC08_190026_20190701_LC08_190026_20190717.tif") is None
    assert find_product_id("XLC08_190026_201907011.tif") is None


@pytest.mark.parametrize(
    "name",
    [
        "LC08_190026_20190701.SR_B{n}.tif",
        "LC08_CU_003010_20190701_20210504_02_SR_B{n}.TIF",
        "LC08_L2SP_190026_20190701_02_T1_SR_B{n}.tif",
        "SR_B{n}.tif",
        "{c}.tif",
    ],
)
def test_band_files_of_every_archive(tmp_path, name) -> None:
    common = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    for number, band in enumerate(some_numbers(SIDE), 1):
        path = tmp_path / "f" / name.format(n=number, c=common[number - 1])
        write_band(path, band[None])
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert np.array_equal(pixels_of(tmp_path / "f"), some_numbers(SIDE))
    assert (find_scene(tmp_path / "f").time.day is None) == (not name.startswith("LC08"))
    assert np.array_equal(pixels_of(path), some_numbers(SIDE)), "a band file stands for those beside it"
    alone = write_band(tmp_path / "alone" / path.name, some_numbers(SIDE)[:1])
    refused(alone, "one band of a scene; give the folder")


def test_stated_time_fills_what_is_missing_and_contradicts_nothing(tmp_path) -> None:
    from datetime import date, time

    path = write_band(tmp_path / "s.tif", some_numbers(SIDE))
    scene = find_scene(path, SceneOptions(day=date(2019, 7, 1), clock=time(9, 52)))
    assert (scene.time.week, scene.time.hour) == (27, 9)
    folder = write_product(tmp_path / "p", some_numbers(SIDE))
    refused(folder, "--date 2019-07-01.*2018-07-04", day=date(2019, 7, 1))


# --------------------------------------------------------------------------- MTL and companions


def groups(product: str = PRODUCT) -> dict:
    level1 = product.replace("L2SP", "L1TP")
    return {
        "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": product, "PROCESSING_LEVEL": "L2SP"},
        "LEVEL1_PROCESSING_RECORD": {"LANDSAT_PRODUCT_ID": level1, "PROCESSING_LEVEL": "L1TP"},
        "IMAGE_ATTRIBUTES": {"DATE_ACQUIRED": "2018-07-04", "SCENE_CENTER_TIME": "09:52:31.5Z", "STATION_ID": "Köln"},
    }


def as_text(found: dict) -> str:
    lines = [f"GROUP = {group}\n" + "".join(f'    {k} = "{v}"\n' for k, v in values.items()) + f"END_GROUP = {group}\n"
             for group, values in found.items()]  # fmt: skip
    return "GROUP = LANDSAT_METADATA_FILE\n" + "".join(lines) + "END_GROUP = LANDSAT_METADATA_FILE\nEND\n"


def as_xml(found: dict) -> str:
    inner = "".join(f"<{g}>" + "".join(f"<{k}>{v}</{k}>" for k, v in vs.items()) + f"</{g}>" for g, vs in found.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>'


def as_json(found: dict) -> str:
    return json.dumps({"LANDSAT_METADATA_FILE": found}, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize(("ending", "write"), [("json", as_json), ("txt", as_text), ("xml", as_xml)])
def test_an_mtl_is_read_by_group_in_every_form_and_order(tmp_path, ending, write, encoding) -> None:
    for order in (groups(), dict(sorted(groups().items())), dict(reversed(groups().items()))):
        path = tmp_path / f"a_MTL.{ending}"
        path.write_bytes(write(order).encode(encoding))
        values = read_mtl(path)
        assert (values["LANDSAT_PRODUCT_ID"], values["PROCESSING_LEVEL"]) == (PRODUCT, "L2SP")
        assert values["SCENE_CENTER_TIME"].startswith("09:52:31")


def test_null_is_missing(tmp_path) -> None:
    folder = write_product(tmp_path / "p", some_numbers(SIDE))
    found = groups()
    found["IMAGE_ATTRIBUTES"] |= {"SCENE_CENTER_TIME": None, "SUN_ELEVATION": None}
    (folder / f"{PRODUCT}_MTL.json").write_text(as_json(found))
    scene = find_scene(folder)
    assert scene.time.day and scene.time.clock is None


def test_companions_belong_to_the_product(tmp_path) -> None:
    other = PRODUCT.replace("193024", "193025")
    folder = write_product(tmp_path / "p", some_numbers(SIDE), time=None)
    quality = np.full((1, *SIDE), CLEAR, np.uint16)
    stranger = write_band(folder / f"{other}_QA_PIXEL.TIF", quality)
    refused(folder, f"{other}_QA_PIXEL.TIF: belongs to another scene than {PRODUCT}")
    stranger.unlink()
    (folder / f"{other}_MTL.json").write_text(as_json(groups(other)))
    refused(folder, "MTL.json: belongs to another scene")
    (folder / f"{other}_MTL.json").unlink()
    refused(folder, "belongs to another scene", qa=write_band(tmp_path / f"{other}_QA_PIXEL.TIF", quality))
    for number, band in enumerate(some_numbers(SIDE), 1):  # Earth Engine's name and USGS's MTL of the same acquisition
        write_band(tmp_path / "gee" / f"LC08_193024_20180704.SR_B{number}.tif", band[None])
    (tmp_path / "gee" / f"{PRODUCT}_MTL.json").write_text(as_json(groups()))
    assert find_scene(tmp_path / "gee").time.hour == 9


# --------------------------------------------------------------------------- names of bands, scales, sensors


def test_a_quality_band_in_the_stack_is_used(tmp_path) -> None:
    quality = np.full((1, *SIDE), CLEAR, np.uint16)
    quality[:, :, :20] = CLOUD
    stack = np.concatenate([some_numbers(SIDE), quality])
    path = write_band(tmp_path / "s.tif", stack, descriptions=[*NAMES, "QA_PIXEL"])
    for options in ({}, {"bands": (1, 2, 3, 4, 5, 6, 7)}):
        pixels = pixels_of(path, **options)
        assert not pixels[:, :, :20].any() and (pixels[:, :, 20:] > 0).all()


SENTINEL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


def test_sentinel_2_never_has_red_edge_as_near_infrared(tmp_path) -> None:
    ground = some_numbers(SIDE)
    stack = ground[[0, 1, 2, 3, 3, 4, 4, 4, 4, 0, 5, 6]]
    path = write_band(tmp_path / "s2.tif", stack, descriptions=SENTINEL)
    assert "--bands 1,2,3,4,9,11,12" in refused(path, "Sentinel-2's")
    refused(path, r"band 5 for SR_B5 \(nir08\), the file calls it B05", bands=(1, 2, 3, 4, 5, 6, 7))
    pixels_of(path, bands=(1, 2, 3, 4, 9, 11, 12))
    edge = np.array([0.045, 0.05, 0.08, 0.06, 0.11, 0.25, 0.30])[:, None, None]
    waves = 1 + 0.15 * np.sin(np.mgrid[: SIDE[0], : SIDE[1]].sum(0) / 13)
    s30 = write_band(tmp_path / "s30.tif", (edge * waves * 10_000).astype(np.int16), descriptions=SENTINEL[:7])
    refused(s30, "red edge", scale=(0.0001, 0.0))
    named = write_band(tmp_path / "HLS.S30.T17SLU.2020209T155956.v2.0.tif", ground)
    refused(named, "Sentinel-2 has bands at other wavelengths")


def test_names_and_choice_have_to_agree(tmp_path) -> None:
    path = write_band(tmp_path / "s.tif", some_numbers(SIDE), descriptions=[f"{name}_median" for name in NAMES])
    assert np.array_equal(pixels_of(path), some_numbers(SIDE))
    refused(path, "band 7 for SR_B1 .*calls it SR_B7_median", bands=(7, 6, 5, 4, 3, 2, 1))


def tagged(path, numbers, scale: float, offset: float):
    write_band(path, numbers)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [scale] * len(numbers), [offset] * len(numbers)
    return path


def test_scales_in_tags_count(tmp_path) -> None:
    numbers = np.maximum(some_numbers(SIDE), 7300)
    reflectance = numbers * 2.75e-5 - 0.2
    path = tagged(tmp_path / "s.tif", (reflectance * 10_000).round().astype(np.uint16), 0.0001, 0.0)
    np.testing.assert_allclose(pixels_of(path).astype(int), numbers, atol=2)
    assert any("0.0001" in note for note in find_scene(path).notes)
    refused(path, r"tags say reflectance = value \* 0.0001 \+ 0, --scale says 1,0", scale=(1.0, 0.0))
    stored = tagged(tmp_path / "c2.tif", some_numbers(SIDE), 0.0000275, -0.2)
    assert find_scene(stored).scale is None and np.array_equal(pixels_of(stored), some_numbers(SIDE))


def test_a_stated_scale_switches_off_no_other_check(tmp_path) -> None:
    reflectance = (some_numbers(SIDE) * 2.75e-5 - 0.2).astype(np.float32)
    refused(write_band(tmp_path / "o.tif", reflectance[::-1]), "order.*--bands", scale=(1.0, 0.0))
    refused(write_band(tmp_path / "n.tif", some_numbers(SIDE)), "gives .*correct --scale", scale=(1.0, 0.0))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Sentinel-2A", "SPACECRAFT_ID says Sentinel-2A"),
        ("Landsat-3", "SPACECRAFT_ID says Landsat-3"),
        ("LANDSAT_7", r"has 7 bands, expected 6: .*ETM\+"),
        ("landsat-5", "has 7 bands, expected 6: .*TM of"),
    ],
)
def test_the_sensor_in_a_tag_counts(tmp_path, said, why) -> None:
    path = write_band(tmp_path / "s.tif", some_numbers(SIDE))
    with rasterio.open(path, "r+") as file:
        file.update_tags(SPACECRAFT_ID=said)
    refused(path, why)
