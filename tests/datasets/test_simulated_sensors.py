"""The simulator's other sensors: TM and ETM+ see the same land, ETM+ with gaps, and OLI as before."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from datasets.simulated import main
from datasets.simulator.instruments import USUAL, Observation, as_seen_by, scan_gaps
from datasets.simulator.scene import QA_FILL, SimulatedScene
from datasets.simulator.truth import ground_truth
from transformation.cross_sensor import ETM_TO_OLI, OLI_TO_ETM, along
from utils.data_utils import parse_patch_id
from utils.errors import ConfigError
from utils.sensors import ETM, OLI, TM

SIZE = 200


def whole(observation: Observation = USUAL, size: int = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, quality and truth of a scene."""
    parts = list(SimulatedScene(size, 3, observation=observation).stripes())
    return tuple(np.concatenate([part[index] for part in parts], axis=axis) for index, axis in ((0, 1), (1, 0), (2, 0)))


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_without_a_choice_the_scene_is_what_it_was() -> None:
    """Measurements on simulated scenes are comparable only while seeds give what they gave."""
    numbers, qa, _ = whole()
    assert numbers.mean((1, 2)) == pytest.approx(
        [6456.33, 6584.55, 7104.25, 7428.75, 11524.09, 11233.2, 9244.39], abs=0.05
    )
    before = [[8310, 8535, 8567, 8774], [8365, 8792, 8944, 8996], [9082, 9715, 10148, 9965], [8626, 10011, 10272, 9846],
              [19507, 17511, 18407, 20461], [13531, 16780, 17551, 16890], [10247, 13153, 14029, 12918]]  # fmt: skip
    assert np.abs(numbers[:, 100, 100:104].astype(int) - before).max() <= 1, "other processors round otherwise"
    assert (qa == QA_FILL).sum() == 10900


def test_another_year_is_the_same_day_of_it_under_another_sky() -> None:
    usual, later = SimulatedScene(SIZE, 3), SimulatedScene(SIZE, 3, observation=Observation(OLI, 2025, False))
    assert later.when == usual.when.replace(year=2025)
    assert np.array_equal(next(usual.stripes()).truth, next(later.stripes()).truth)
    assert not np.array_equal(usual._cloud.read(0, 0, SIZE, SIZE), later._cloud.read(0, 0, SIZE, SIZE))


def test_another_sensor_sees_the_same_land_by_the_published_lines() -> None:
    oli, qa, truth = whole()
    etm, etm_qa, etm_truth = whole(Observation(ETM))
    assert etm.shape == (6, SIZE, SIZE)
    assert np.array_equal(truth, etm_truth)
    assert np.array_equal(qa == QA_FILL, etm_qa == QA_FILL) and np.array_equal((oli == 0).all(0), (etm == 0).any(0))
    seen = oli[0] > 0
    reflectance = oli[1:, seen] * OLI.scale + OLI.offset  # SR_B2..SR_B7
    expected = OLI_TO_ETM.of(reflectance)
    assert np.abs(etm[:, seen] * OLI.scale + OLI.offset - expected).max() < OLI.scale
    assert not (etm_qa & (1 << 2 | 1 << 14 | 1 << 15)).any(), "no cirrus band"
    assert np.array_equal(whole(Observation(TM, 1984, False))[2], truth), "another year, the same land"


def test_lines_are_the_published_ones_and_go_both_ways() -> None:
    numbers = np.stack([np.arange(8000, 20000, 7, dtype=np.uint16)] * 6)
    there = along(numbers, OLI_TO_ETM)
    blue = ((8000 * OLI.scale + OLI.offset) * 0.8850 + 0.0183 - OLI.offset) / OLI.scale
    assert there[0, 0] == round(blue)
    for lines in ETM_TO_OLI.values():
        back = along(there, lines).astype(int)
        assert (np.diff(back) > 0).all()
        assert np.abs((back - numbers) * OLI.scale).max() < 0.08
    assert along(np.zeros((6, 2), np.uint16), OLI_TO_ETM).sum() == 0, "fill stays fill"


def test_gaps_are_wedges_of_a_fifth_of_the_swath() -> None:
    across, line = np.linspace(-1, 1, 6000)[None], np.arange(320)[:, None]
    gaps = scan_gaps(across, line)
    assert 0.21 < gaps.mean() < 0.23
    assert not gaps[:, 2990:3010].any()
    assert gaps[:, 0].sum() == gaps[:, -1].sum() == 10 * 13, "13 of 32 lines at the edges"
    assert not np.array_equal(gaps[:, 0], gaps[:, -1]), "wedges open on the left and on the right in turn"


def test_gaps_are_fill_in_all_bands() -> None:
    numbers, qa, truth = whole(Observation(ETM, None, True))
    intact, intact_qa, intact_truth = whole(Observation(ETM))
    gap = (qa == QA_FILL) & (intact_qa != QA_FILL)
    assert 0.1 < gap.sum() / (intact_qa != QA_FILL).sum() < 0.3
    assert (numbers[:, gap] == 0).all() and np.array_equal(numbers[:, ~gap], intact[:, ~gap])
    assert np.array_equal(truth, intact_truth), "the ground is there, though it is not seen"
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    assert not gap[middle, middle].any()


def test_a_product_of_each_sensor(tmp_path) -> None:
    for options, mission, spacecraft, sensor in (
        (("tm", "--year", 1983), "LT04", "LANDSAT_4", "TM"),
        (("tm", "--year", 1984), "LT05", "LANDSAT_5", "TM"),
        (("etm", "--slc-off"), "LE07", "LANDSAT_7", "ETM"),
        (("oli", "--year", 2025), "LC08", "LANDSAT_8", "OLI_TIRS"),
    ):
        out = tmp_path / "scene"  # each replaces the one before
        run("--kind", "scene", "--size", 64, "--seed", 3, "--out", out, "--sensor", *options)
        (mtl,) = out.glob("*_MTL.json")
        assert mtl.name.startswith(f"{mission}_L2SP_999999_")
        about = json.loads(mtl.read_text())["LANDSAT_METADATA_FILE"]
        assert about["IMAGE_ATTRIBUTES"]["SPACECRAFT_ID"] == spacecraft
        assert about["IMAGE_ATTRIBUTES"]["SENSOR_ID"] == sensor
        bands = sorted(path.stem[-1] for path in out.glob("*_SR_B*.TIF"))
        assert bands == list("1234567" if sensor == "OLI_TIRS" else "123457")
        command = " ".join(str(option) for option in ("--sensor", *options) if options[0] != "oli" or option == 2025)
        assert command.split()[-1] in (out / "README.md").read_text()


def test_patches_of_another_sensor(tmp_path) -> None:
    common = ("--kind", "bigearthnet", "--patches", 12, "--seed", 5)
    run(*common, "--out", tmp_path / "oli")
    run(*common, "--out", tmp_path / "etm", "--sensor", "etm", "--year", 2010, "--slc-off")
    for old, new in zip(*(sorted(_by_place(tmp_path / name).items()) for name in ("oli", "etm")), strict=True):
        assert old[0] == new[0]
        with rasterio.open(old[1]) as file, rasterio.open(new[1]) as other:
            assert other.descriptions == ETM.bands and file.descriptions == (None,) * 7
            numbers, seen = file.read(), other.read()
        there = (seen > 0).all(0)
        assert np.array_equal(as_seen_by(numbers, ETM)[:, there], seen[:, there]) and not seen[:, ~there].any()
        assert parse_patch_id(new[1].stem).when.year == 2010
    ids = (tmp_path / "etm" / "bigearthnet-train.csv").read_text().split()
    assert ground_truth(tmp_path / "etm", ids).shape == (len(ids), 40, 40), "its README's command is understood"


def _by_place(folder: Path) -> dict[str, Path]:
    return {path.stem.split("_", 3)[3]: path for path in (folder / "images").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sensor", "tm"], "--sensor tm: give the --year, 1982 to 2012"),
        (["--sensor", "tm", "--year", "2020"], "TM flew 1982 to 2012"),
        (["--year", "1984"], "OLI flew from 2013 on"),
        (["--slc-off"], "is for --sensor etm from 2003 on"),
        (["--sensor", "etm", "--year", "2000", "--slc-off"], "is for --sensor etm from 2003 on"),
    ],
)
def test_impossible_observations_are_one_line(arguments, named, tmp_path) -> None:
    with pytest.raises(ConfigError, match=named.replace("+", r"\+")):
        main(["--kind", "scene", "--size", "64", "--out", str(tmp_path / "a"), *arguments])
    with pytest.raises(ConfigError, match="are for scenes and BigEarthNet patches"):
        main(["--kind", "eurosat", "--patches", "10", "--out", str(tmp_path / "a"), "--sensor", "etm"])
    assert not list(tmp_path.iterdir())


def test_observed_patches_keep_what_does_not_change() -> None:
    numbers = torch.randint(1, 60000, (7, 4, 4)).to(torch.uint16).numpy()
    assert as_seen_by(numbers, OLI) is numbers
    assert as_seen_by(numbers, TM).dtype == np.uint16
