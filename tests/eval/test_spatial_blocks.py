"""Blocks of neighbouring patches: which ids are near each other, and splits that keep them on one side."""

import numpy as np
import pytest
from conftest import SAMPLE
from packing import SPLITS, pack
from tiny import some_pixels, write_bigearthnet, write_tif

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.eurosat import EuroSATDatasetLS
from datasets.patches import read_split
from eval.split_by_area import main
from eval.statistics.spatial_blocks import (
    area_folds,
    describe_blocks,
    neighbour_blocks,
    parse_cell,
    split_by_area,
    touching,
)
from utils.errors import ConfigError

PASS = "S2A_MSIL2A_20170613T101031"


def grid(side: int, name: str = PASS) -> list[str]:
    return [f"{name}_{column}_{row}" for column in range(side) for row in range(side)]


def test_an_id_is_a_cell() -> None:
    cell = parse_cell("S2B_MSIL2A_20170924T93020_12_40")
    assert (cell.satellite, cell.column, cell.row) == ("S2B", 12, 40)
    assert str(cell.when) == "2017-09-24 09:30:20"
    assert parse_cell("Forest_12") is None and parse_cell("S2B_MSIL2A_20171324T93020_12_40") is None


@pytest.mark.parametrize(
    ("ids", "together"),
    [
        ((f"{PASS}_0_0", f"{PASS}_9_9"), True),
        ((f"{PASS}_9_9", f"{PASS}_10_9"), False),  # beyond the border of the square
        ((f"{PASS}_0_0", "S2A_MSIL2A_20170613T101032_1_1"), True),  # a second later: the same pass
        ((f"{PASS}_0_0", "S2A_MSIL2A_20170613T114031_1_1"), False),  # the next orbit
        ((f"{PASS}_0_0", "S2B_MSIL2A_20170613T101031_1_1"), False),  # the other satellite
        (("S2A_MSIL2A_20170905T095031_3_3", "S2A_MSIL2A_20170905T95032_4_4"), True),  # a lost zero
        (("S2A_MSIL2A_20170613T095959_3_3", "S2A_MSIL2A_20170613T100000_4_4"), True),  # across the hour
        (("Forest_1", "Forest_2"), False),
    ],
)
def test_who_is_in_a_block(ids: tuple[str, str], together: bool) -> None:
    blocks = neighbour_blocks(ids)
    assert (blocks[0] == blocks[1]) is np.bool_(together)


def test_blocks_are_squares_and_unknown_ids_stand_alone() -> None:
    blocks = neighbour_blocks(grid(20))
    assert np.bincount(blocks).tolist() == [100] * 4
    assert np.bincount(neighbour_blocks(grid(20), cell=5)).tolist() == [25] * 16
    names = [f"Forest_{index}" for index in range(7)]
    assert neighbour_blocks(names).tolist() == list(range(7))
    assert "block of its own" in describe_blocks(names, neighbour_blocks(names))
    assert "400 patches in 4 blocks" in describe_blocks(grid(20), blocks)


def test_places_join_what_ids_cannot() -> None:
    """The same ground on another date, or from an overlapping tile, is the same area."""
    ids = [f"{PASS}_1_1", "S2B_MSIL2A_20180421T114349_80_3", f"{PASS}_2_1", "unknown"]
    places = np.array([[61.003, 21.003], [61.004, 21.006], [40.0, -8.0], [np.nan, np.nan]])
    assert neighbour_blocks(ids, places).tolist() == [0, 0, 1, 2]


def test_a_square_by_place_is_about_twelve_kilometres() -> None:
    """A 48 km square of patches, anywhere in Europe, falls into some 16 blocks of some 100 patches."""
    for latitude in (38.0, 52.0, 67.0):
        steps = np.arange(40) * 1.2 / 111.2
        north, east = np.meshgrid(latitude + steps, 10 + steps / np.cos(np.radians(latitude)))
        places = np.stack([north.ravel(), east.ravel()], axis=1)
        sizes = np.bincount(neighbour_blocks(["x"] * 1600, places))
        assert 16 <= len(sizes) <= 30 and sizes.max() <= 130


def test_splits_keep_areas_on_one_side() -> None:
    ids = grid(60) + [f"Forest_{index}" for index in range(10)]
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    found = split_by_area(ids, shares, seed=0)
    assert sorted(name for split in found.values() for name in split) == sorted(ids)
    assert [len(found[name]) / len(ids) for name in ("train", "val", "test")] == pytest.approx(
        [0.5, 0.25, 0.25], abs=0.05
    )
    block_of = dict(zip(ids, neighbour_blocks(ids), strict=True))
    sides = [{block_of[name] for name in split} for split in found.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert found == split_by_area(ids, shares, seed=0) != split_by_area(ids, shares, seed=1)
    assert found["train"] == [name for name in ids if name in set(found["train"])], "in the order given"


def test_no_split_goes_without() -> None:
    found = split_by_area(["a", "b", "c"], {"train": 0.98, "val": 0.01, "test": 0.01}, seed=0)
    assert [len(split) for split in found.values()] == [1, 1, 1]
    with pytest.raises(ConfigError, match="1 areas, too few for 2"):
        split_by_area(grid(3), {"train": 1, "test": 1}, seed=0)
    with pytest.raises(ConfigError, match="positive"):
        split_by_area(grid(3), {"train": 1, "test": 0}, seed=0)


def test_folds_are_alike_in_size() -> None:
    folds = area_folds(grid(60), 4, seed=0)
    assert np.bincount(folds).tolist() == [900] * 4


def test_touching_by_id_and_by_place() -> None:
    ids = [f"{PASS}_1_1", f"{PASS}_2_2", f"{PASS}_4_2", "S2A_MSIL2A_20170613T101032_5_3", "Forest_1"]
    first = np.array([True, True, True, False, True])
    assert touching(ids, None, first, ~first).tolist() == [False, False, True, False, False]
    assert touching(ids, None, np.arange(5) == 0, np.arange(5) == 1).tolist() == [True, False, False, False, False]
    places = np.array([[60, 20], [np.nan, np.nan], [np.nan, np.nan], [60.01, 20.02], [np.nan, np.nan]])  # 1.6 km
    assert touching(ids, places, first, ~first).tolist() == [True, False, True, False, False]


def test_places_of_the_sample_and_the_way_from_them() -> None:
    dataset = BigEarthNetDatasetLS(SAMPLE, "bigearthnet-test.csv")
    places = dataset.places()
    assert np.isfinite(places).all() and (places[:, 0] > 35).all() and (places[:, 0] < 72).all()
    assert len(np.unique(neighbour_blocks(dataset.ids, places))) > 20


def test_patches_without_metadata_have_no_place_and_blocks_by_their_ids(tmp_path) -> None:
    (tmp_path / "some.txt").write_text("\n".join(f"Forest_{number}.jpg" for number in (1, 2)) + "\n")
    for number in (1, 2):
        write_tif(tmp_path / "Forest" / f"Forest_{number}.tif", some_pixels(number, (8, 22, 22)))
    dataset = EuroSATDatasetLS(tmp_path, tmp_path / "some.txt")
    places = dataset.places()
    assert places.shape == (2, 2) and np.isnan(places).all()
    assert neighbour_blocks(dataset.ids, places).tolist() == neighbour_blocks(dataset.ids).tolist() == [0, 1]


COMMAND = ["--dataset_path", str(SAMPLE), "--dataset_csv", *SPLITS["bigearthnet_ls"]]


def test_the_command_writes_split_files(tmp_path, capsys) -> None:
    """Of the sizes given, headerless, readable by the dataset, the same from a pack."""
    assert main([*COMMAND, "--out", str(tmp_path / "a")]) == 0
    assert "area-test.csv: 64 patches, 0 of them beside" in capsys.readouterr().out
    files = {split: tmp_path / "a" / f"area-{split}.csv" for split in ("train", "val", "test")}
    ids = {split: read_split(path) for split, path in files.items()}
    assert {split: len(names) for split, names in ids.items()} == {"train": 192, "val": 48, "test": 64}
    assert len(BigEarthNetDatasetLS(SAMPLE, files["train"])) == 192
    assert sorted(name for names in ids.values() for name in names) == sorted(read_split(SAMPLE / "samples.csv"))
    packed = pack(tmp_path / "pack", SAMPLE, SPLITS["bigearthnet_ls"])
    assert main(["--dataset_path", str(packed), *COMMAND[2:], "--out", str(tmp_path / "b")]) == 0
    for path in files.values():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ConfigError, match="is there already with other patches"):
        main([*COMMAND, "--out", str(tmp_path / "a"), "--seed", "1"])


def test_a_gap_keeps_neighbours_across_a_border_apart(tmp_path, capsys) -> None:
    """A strip of twenty patches side by side, cut into squares of four."""
    ids = [f"{PASS}_{column}_0" for column in range(20)]
    root = write_bigearthnet(tmp_path / "data", {name: some_pixels(0, (7, 41, 41)) for name in ids})
    for number, name in enumerate(ids):  # one beside the other
        origin = (500_000 + 1200.0 * number, 5_500_000.0)
        write_tif(root / "images" / f"{name}.tif", some_pixels(0, (7, 41, 41)), origin=origin)
    command = ["--dataset_path", str(root), "--dataset_csv", "split.csv", "--shares", "2", "1", "1", "--cell", "4"]

    def beside(*options: str) -> int:
        assert main([*command, *options]) == 0
        lines = capsys.readouterr().out.strip().split("\n")[-3:]
        return sum(int(line.split(", ")[1].split()[0]) for line in lines)

    assert beside("--out", str(tmp_path / "a")) > 0 == beside("--out", str(tmp_path / "b"), "--gap")


def test_the_command_says_what_is_wrong(tmp_path) -> None:
    for options, problem in (
        (["--dataset_path", str(SAMPLE), "--dataset_csv", "samples.csv"], "give --shares"),
        ([*COMMAND, "--shares", "1", "0", "1"], "numbers above 0"),
        ([*COMMAND, "--cell", "0"], "--cell at least 1"),
        ([*COMMAND, "--cell", "100000"], "too few for 3 splits"),
    ):
        with pytest.raises(ConfigError, match=problem):
            main([*options, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
