"""The temporal module: any dates in any order to one vector, missing ones without influence, checked weights."""

from datetime import date

import numpy as np
import pytest
import torch

from models.temporal import TemporalConfig, TemporalModule, decimal_year, fitted_year, harmonics
from models.temporal_weights import (
    SHIPPED,
    read_temporal,
    read_temporal_checkpoint,
    write_temporal,
    write_temporal_checkpoint,
)
from utils.errors import CheckpointError

SMALL = TemporalConfig(width=7, pool="patch_mean", dim=12, depth=2, heads=2, groups=1, expert_width=6, slots=3)


@pytest.fixture(scope="module")
def module() -> TemporalModule:
    torch.manual_seed(0)
    made = TemporalModule(SMALL)
    for parameter in made.parameters():  # so that every part has a say
        torch.nn.init.normal_(parameter, std=0.5)
    made.mean.normal_()
    made.spread.uniform_(0.5, 2.0)
    return made.eval()


def series(count: int = 4, dates: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    times = 2015 + 3 * torch.rand(count, dates, generator=random, dtype=torch.float64)
    return torch.randn(count, dates, SMALL.width, generator=random), times


def test_one_vector_a_series_whatever_the_number_of_dates(module) -> None:
    for dates in (1, 2, 30):
        vectors, times = series(dates=dates)
        found = module(vectors, times)
        assert found.shape == (4, module.vector_width) and found.isfinite().all()
        assert not torch.allclose(found[0], found[1])
    assert torch.equal(module(vectors, times[0].expand(4, -1)), module(vectors, times[0])), "the same days for all"


def test_the_order_of_dates_has_no_influence(module) -> None:
    vectors, times = series()
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(module(vectors[:, order], times[:, order]), module(vectors, times), rtol=1e-4, atol=1e-5)


def test_missing_dates_influence_nothing(module) -> None:
    vectors, times = series()
    present = torch.tensor([True, False, True, True, False]).expand(4, -1)
    for rubbish in (torch.nan, torch.inf, 1e30):
        spoiled = torch.where(present.unsqueeze(-1), vectors, rubbish)
        moved = torch.where(present, times, 1900.0)
        assert torch.equal(module(spoiled, moved, present), module(vectors, times, present))
    seen = present[0]
    torch.testing.assert_close(
        module(vectors, times, present), module(vectors[:, seen], times[:, seen]), rtol=1e-4, atol=1e-5
    )
    with_nan = torch.where(present.unsqueeze(-1), vectors, torch.nan)
    assert torch.equal(module(with_nan, times), module(vectors, times, present)), "NaN says that a date is missing"
    nothing = module(torch.full_like(vectors, torch.nan), times)
    assert nothing.isnan().all()


def test_days_and_years_have_influence(module) -> None:
    vectors, times = series()
    assert not torch.allclose(module(vectors, times), module(vectors, times + 0.25))
    further = times + 2.0 * (torch.arange(5) == 0)
    assert not torch.allclose(module(vectors, times), module(vectors, further))
    torch.testing.assert_close(module(vectors, times), module(vectors, times - 31.0), rtol=1e-4, atol=1e-4)


def test_days_that_are_asked_for_are_looked_at_by_nobody(module) -> None:
    vectors, times = series()
    present = torch.ones(4, 5, dtype=torch.bool)
    told, alone = module.foretell(vectors, times, present, times[:, :1])
    more, among = module.foretell(vectors, times, present, torch.cat([times[:, :1], times - 0.4], dim=1))
    torch.testing.assert_close(told, more[:, :1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.dates, among.dates, rtol=1e-4, atol=1e-5)


def test_the_year_of_a_series_is_found_again() -> None:
    """Values that are harmonics of the season come back as their coefficients, from any dates."""
    times = series(dates=9)[1]
    coefficients = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(2))
    values = (harmonics(times) @ coefficients.double()).float()
    weight = torch.ones(4, 9)
    weight[:, 2] = 0.0
    values[:, 2] = 1e6
    torch.testing.assert_close(fitted_year(values, times, weight), coefficients, rtol=1e-3, atol=1e-3)


def test_a_day_as_a_year_with_its_part() -> None:
    assert decimal_year(date(2021, 1, 1)) == pytest.approx(2021, abs=0.01)
    assert decimal_year(date(2020, 7, 2)) == pytest.approx(2020.5, abs=0.01)
    assert decimal_year(date(2021, 1, 1)) > decimal_year(date(2020, 12, 31))


def test_the_module_of_the_shipped_size_is_small() -> None:
    for width in (108, 216):
        made = TemporalModule(TemporalConfig(width=width, pool="patch_mean"))
        assert sum(parameter.numel() for parameter in made.parameters()) <= 200_000


def test_weights_come_back_as_they_were(module, tmp_path) -> None:
    digest = write_temporal(tmp_path / "w.npz", module)
    again = read_temporal(tmp_path / "w.npz")
    assert again.config == SMALL and not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())
    assert write_temporal(tmp_path / "w2.npz", again) == digest, "the same weights, the same bytes"
    path = tmp_path / "c.pth"
    write_temporal_checkpoint(path, module, step=3)
    content = read_temporal_checkpoint(path, path.read_bytes())
    assert content["step"] == 3 and torch.equal(content["module"].asked, module.asked)


def test_damaged_weights_are_refused_in_one_line(module, tmp_path) -> None:
    path = tmp_path / "w.npz"
    write_temporal(path, module)
    data = path.read_bytes()
    middle = len(data) // 2
    for spoiled in (data[:middle], b"", b"text", data[:middle] + bytes(200) + data[middle + 200 :]):
        path.write_bytes(spoiled)
        with pytest.raises(CheckpointError, match=r"w\.npz: damaged") as refused:
            read_temporal(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(CheckpointError, match="no such weights"):
        read_temporal(tmp_path / "none.npz")
    with np.load(_written(tmp_path / "whole.npz", module)) as file:
        arrays = {name: file[name] for name in file.files}
    for change, named in (
        ({"asked": np.full(12, np.nan, np.float32)}, "NaN or infinite numbers in asked"),
        ({"asked": np.zeros(5, np.float32)}, "weights that its config describes"),
        ({"config": np.array('{"version": 99}')}, "version 99"),
    ):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(CheckpointError, match=named):
            read_temporal(path)
    (tmp_path / "manifest.json").write_text('{"whole.npz": {"sha256": "0"}}')
    with pytest.raises(CheckpointError, match="is not the file that"):
        read_temporal(tmp_path / "whole.npz")


def _written(path, module):
    write_temporal(path, module)
    return path


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the weights do not come with this copy")
def test_the_shipped_weights() -> None:
    module = read_temporal()
    assert SHIPPED.stat().st_size < 1_000_000
    assert sum(parameter.numel() for parameter in module.parameters()) <= 200_000
    assert module(torch.zeros(2, 1, module.config.width), torch.tensor([2021.5])).isfinite().all(), "one date"
