"""The variant `realistic` of the simulator: other pixels of the same land, and nothing else changed."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reproduction import SimulateSection
from datasets.simulated import main, simulate
from datasets.simulator.constants import CENTRE, REALISTIC, STANDARD
from datasets.simulator.patches import SimulatedPatches
from datasets.simulator.realistic import LAST_NUMBER, SURFACES, SURFACES_FILE, surface_factors, surface_of_class
from datasets.simulator.truth import ground_truth
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE, BigEarthNetInfo
from utils.errors import ConfigError

N = 200


@cache
def patches(variant: str, kind: str = "bigearthnet") -> SimulatedPatches:
    return simulate(N, 3, kind=kind, variant=variant)


@cache
def reflectance(variant: str) -> np.ndarray:
    """(n, 7, 40, 40) of the patches without fill."""
    images = patches(variant).images.numpy()[..., CENTRE, CENTRE]
    return images[(images != 0).all(axis=(1, 2, 3))] * REFLECTANCE_SCALE + REFLECTANCE_OFFSET


def run(out: Path, *more: object) -> int:
    arguments = ["--kind", "bigearthnet", "--patches", 12, "--seed", 4, "--splits", 6, 3, 3, "--out", out, *more]
    return main([str(argument) for argument in arguments])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_standard_files_are_still_the_same_bytes(tmp_path: Path) -> None:
    """With the option and without: it came later, and the benches must not notice."""
    run(tmp_path / "silent")
    run(tmp_path / "said", "--variant", "standard")
    assert files_of(tmp_path / "silent") == files_of(tmp_path / "said")


@pytest.mark.parametrize("kind", ["bigearthnet", "eurosat"])
def test_variants_differ_in_their_pixels_alone(kind: str) -> None:
    standard, realistic = patches(STANDARD, kind), patches(REALISTIC, kind)
    for name in SimulatedPatches._fields:
        first, second = getattr(standard, name), getattr(realistic, name)
        if name == "places":
            assert all(map(torch.equal, first, second))
        elif name != "images":
            assert torch.equal(first, second), name
    one, other = standard.images.int(), realistic.images.int()
    assert torch.equal(one == 0, other == 0), "the same fill"
    assert (one != other)[:, :7][one[:, :7] != 0].float().mean() > 0.9
    if kind == "eurosat":
        assert torch.equal(one[:, 7], other[:, 7]), "the thermal band tells of the land"


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first, again, standard = tmp_path / "first", tmp_path / "again", tmp_path / "standard"
    run(first, "--variant", "realistic")
    run(again, "--variant", "realistic")
    run(standard)
    assert files_of(first) == files_of(again)
    changed = {name for name, bytes_ in files_of(standard).items() if files_of(first)[name] != bytes_}
    assert {Path(name).parts[0] for name in changed} == {"images", "README.md"}, "names, labels and splits are the same"
    assert "--variant realistic" in (first / "README.md").read_text()
    ids = (first / "bigearthnet-test.csv").read_text().split()
    assert np.array_equal(ground_truth(first, ids), ground_truth(standard, ids))


def test_a_patch_does_not_depend_on_how_many_are_asked_for() -> None:
    few = simulate(3, 3, variant=REALISTIC)
    assert torch.equal(few.images.int(), patches(REALISTIC).images[:3].int())


def test_numbers_use_the_range_of_the_published_patches() -> None:
    images = patches(REALISTIC).images.int()
    assert images.max() == LAST_NUMBER, "snow and cloud saturate"
    assert images[images > 0].min() > 3000, "no land is darker than a reflectance of -0.12"
    assert patches(STANDARD).images.int().max() < LAST_NUMBER


def test_texture_is_that_of_real_windows() -> None:
    """No patch of mere noise, bright spots, and detail that near infrared shares with red."""
    red, nir = 3, 4

    def figures(variant: str) -> tuple[float, float, float]:
        image = reflectance(variant)
        z = (image - image.mean((2, 3), keepdims=True)) / image.std((2, 3), keepdims=True)
        noisiest = float(np.quantile((z[..., 1:] * z[..., :-1])[:, nir].mean((1, 2)), 0.05))
        skewness = float(np.median((z**3)[:, red].mean((1, 2))))
        detail = z - np.stack([np.roll(z, shift, axis) for shift in (1, -1) for axis in (2, 3)]).mean(0)
        detail = detail[:, [red, nir], 1:-1, 1:-1].reshape(len(z), 2, -1)
        return noisiest, skewness, float(np.median([np.corrcoef(one)[0, 1] for one in detail]))

    (noisiest, skewness, shared), standard = figures(REALISTIC), figures(STANDARD)
    assert noisiest > 0.5 > standard[0]
    assert skewness > standard[1] + 0.3
    assert shared > standard[2] + 0.15


def test_bands_are_no_mixture_of_four_directions() -> None:
    """Noise aside, what standard pixels deviate by lies in greenness, soil, moisture and haze beside class spectra."""

    def minor(variant: str) -> float:
        deviation = reflectance(variant)
        deviation = deviation - deviation.mean((2, 3), keepdims=True)
        flat = deviation.transpose(0, 2, 3, 1).reshape(len(deviation), -1, 7)
        variance = np.linalg.eigvalsh(np.einsum("nib,nic->nbc", flat, flat))
        return float(np.median(variance[:, 3] / variance[:, -1]))

    assert minor(REALISTIC) > minor(STANDARD)


def test_dark_water_stays_dark_and_leaves_bright_in_near_infrared() -> None:
    """The surfaces are those of the labels: what a class looks like on average has not moved."""
    found = {}
    for name in ("Sea and ocean", "Coniferous forest", "Non-irrigated arable land"):
        share = patches(STANDARD).surfaces[:, BigEarthNetInfo.CORINE.index(name)] > 0.7
        for variant in (STANDARD, REALISTIC):
            part = patches(variant).images[share].numpy()[..., CENTRE, CENTRE] * REFLECTANCE_SCALE + REFLECTANCE_OFFSET
            found[name, variant] = np.median(part, axis=(0, 2, 3))
        np.testing.assert_allclose(found[name, REALISTIC], found[name, STANDARD], atol=0.1, err_msg=name)
    assert found["Sea and ocean", REALISTIC][4] < 0.06 < 0.12 < found["Coniferous forest", REALISTIC][4]


def test_table_of_surfaces_is_complete() -> None:
    table = json.loads(SURFACES_FILE.read_text(encoding="utf-8"))
    assert "courtesy of the U.S. Geological Survey" in table["_about"]
    assert tuple(table["surfaces"]) == SURFACES
    assert surface_of_class().unique().tolist() == [0, 1, 2, 3]
    for scale in ("between", "coarse", "fine"):
        factor = surface_factors(scale)
        covariance = torch.tensor([table["surfaces"][name][scale] for name in SURFACES])
        torch.testing.assert_close(factor @ factor.transpose(1, 2), covariance, atol=3e-5, rtol=0)
        assert (covariance.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--kind", "scene", "--size", "64", "--out", "x"], "--variant realistic: is for patches"),
        (["--kind", "bigearthnet", "--patches", "9", "--out", "x", "--sensor", "msi"], "is for Landsat's sensors"),
    ],
)
def test_what_has_no_variant_is_one_clear_line(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        main([*arguments, "--variant", "realistic"])
    assert "\n" not in str(caught.value)


def test_configs_name_it() -> None:
    assert SimulateSection(patches=9).variant == STANDARD
    assert SimulateSection(patches=9, variant="realistic").variant == REALISTIC
    with pytest.raises(ValueError, match="realistic"):
        SimulateSection(patches=9, variant="real")
