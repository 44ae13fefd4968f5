"""Patches as people hold them (numpy, torch, xarray, a torchgeo sample) to arrays, and results back to that kind."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.errors import DataError
from utils.sensors import OLI

SAMPLE_KEY = "image"
"""Where torchgeo's samples hold their pixels."""
RESULT_KEY = "embedding"
"""Where such a sample gets its embedding, and the name of that dimension in xarray."""
BAND_DIMENSIONS = ("band", "bands", "channel", "variable", "wavelength")
"""Names of the band dimension in xarray, in the order in which they are looked for."""
PLACE_DIMENSIONS = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("northing", "easting"))

BAND_NAMES = ("common_name", "eo:common_name", "long_name", "band_name", "title")
"""Coordinates along the band dimension that name bands where that dimension itself only counts them."""
SENSOR_KEYS = ("platform", "constellation", "spacecraft_id", "SPACECRAFT_ID", "satellite", "sensor")

Restore = Callable[[np.ndarray], Any]


class PatchInput(NamedTuple):
    """Patches of whatever kind as arrays."""

    patches: np.ndarray | list[np.ndarray]
    """(N, C, H, W), or N arrays (C, H, W) of their own sizes; masked arrays where they were given."""
    bands: tuple[str, ...] | None
    """Names of the C bands, where the input says them."""
    nodata: tuple[float | None, ...] | None
    """The number that stands for fill in each of the C bands, where the input says it."""
    restore: Restore
    """(N, D) numbers in the kind of the input; (D,) for a single patch."""
    scale: tuple[float, float] | None = None
    """(A, B) of reflectance = value * A + B, where the input says it."""
    sensor: str | None = None
    """What took the pixels, in the input's own words."""
    when: Any = None
    """Acquisition times, where the input says them."""


def read_input(pixels: Any) -> PatchInput:
    """Read patches.

    Args:
        pixels: (N, C, H, W) or, for one patch, (C, H, W), in numpy (with a mask or without) or torch; N arrays
            (C, H, W) of their own sizes; an xarray DataArray with a band dimension, or Dataset with a variable a band,
            and at most one dimension more; or a mapping such as torchgeo's samples with any of these under "image".

    Raises:
        DataError: for anything else.
    """
    if isinstance(pixels, Mapping) and SAMPLE_KEY in pixels:
        inner = read_input(pixels[SAMPLE_KEY])
        return inner._replace(restore=lambda rows: {**pixels, RESULT_KEY: inner.restore(rows)})
    if isinstance(pixels, Mapping) and not hasattr(pixels, "dims"):
        held = ", ".join(map(str, pixels)) or "nothing"
        raise DataError(f"pixels: a dict without {SAMPLE_KEY!r} (it holds {held}); give the pixels under that name")
    if type(pixels).__module__.split(".")[0] == "xarray":
        return _from_xarray(pixels)
    if isinstance(pixels, Sequence) and not isinstance(pixels, str) and len(pixels):
        return _from_list(pixels)
    array = _as_array(pixels)
    if array.ndim not in (3, 4):
        raise DataError(f"pixels: have shape {array.shape}; give (patches, bands, height, width), or one patch without")
    single = array.ndim == 3
    restore = _restore_like(pixels)
    return PatchInput(
        array[None] if single else array, None, None, lambda rows: restore(rows[0]) if single else restore(rows)
    )


def _from_list(items: Sequence[Any]) -> PatchInput:
    arrays = [_as_array(item) for item in items]
    if wrong := [array.shape for array in arrays if array.ndim != 3]:
        raise DataError(f"pixels: a list holds patches of shape (bands, height, width), not {wrong[0]}")
    if counts := {len(array) for array in arrays} - {len(arrays[0])}:
        raise DataError(f"pixels: patches of {len(arrays[0])} and of {min(counts)} bands in one list; give one kind")
    return PatchInput(arrays, None, None, _restore_like(items[0]))


def _as_array(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = np.ma.asarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    except ValueError:
        raise DataError("pixels: cannot be made an array; give patches of one size, or a list of arrays") from None
    if array.dtype.kind not in "uif":
        raise DataError(f"pixels: hold {array.dtype} values; give stored Collection-2 Level-2 numbers (uint16)")
    return array


def _restore_like(values: Any) -> Restore:
    if isinstance(values, Tensor):
        return lambda rows: torch.from_numpy(rows).to(values.device)
    return lambda rows: rows


def _from_xarray(array: Any) -> PatchInput:
    xarray = sys.modules["xarray"]  # which made the array

    attributes: list[dict] = []
    if isinstance(array, xarray.Dataset):
        array = array.drop_vars([name for name in array if array[name].ndim < 2])  # spatial_ref and the like
        attributes = [array.attrs | array[name].attrs for name in array]
        array = array.to_array(BAND_DIMENSIONS[0])
    band = next((name for name in BAND_DIMENSIONS if name in array.dims), None)
    if band is None:
        raise DataError(f"pixels: dimensions {array.dims} hold no band dimension; name it {BAND_DIMENSIONS[0]!r}")
    others = [name for name in array.dims if name != band]
    place = place_dimensions(others)
    lead = [name for name in others if name not in place]
    if len(place) != 2 or len(lead) > 1:
        raise DataError(
            f"pixels: dimensions {array.dims}; needed are {band}, two of place and at most one more: stack the others"
        )
    array = north_up(array, place)
    names = next((array[name].values for name in (band, *BAND_NAMES) if _names_bands(array, name, band)), np.empty(0))
    ordered = array.transpose(*lead, band, *place).values
    kept = {name: coord for name, coord in array.coords.items() if set(coord.dims) <= set(lead) and name != band}

    def restore(rows: np.ndarray) -> Any:
        values = rows if lead else rows[0]
        return xarray.DataArray(values, dims=(*lead, RESULT_KEY), coords=kept, name=RESULT_KEY)

    about = attributes or [array.attrs] * array.sizes[band]
    return PatchInput(
        _as_array(ordered if lead else ordered[None]),
        _band_names(names),
        tuple(_nodata(one, array.encoding) for one in about),
        restore,
        _stated_scale(about),
        _sensor(array),
        _times(array, lead),
    )


def _names_bands(array: Any, name: str, band: str) -> bool:
    return name in array.coords and array[name].dims == (band,)


def place_dimensions(dims: Sequence[Any]) -> tuple[Any, ...]:
    """Which two dimensions of an xarray object are those of rows and columns."""
    return next((pair for pair in PLACE_DIMENSIONS if set(pair) <= set(dims)), tuple(dims[-2:]))


def north_up(array: Any, place: tuple[Any, ...]) -> Any:
    """The same (a Dataset, too), rows from north to south and columns from west to east, where coordinates tell."""
    for name, ascending in zip(place, (False, True), strict=True):
        if name in array.coords and array[name].ndim == 1 and array.sizes[name] > 1:
            steps = np.diff(array[name].values.astype(np.float64))
            if not ((steps > 0).all() or (steps < 0).all()):
                raise DataError(f"pixels: their coordinate {name!r} goes neither up nor down; sort by it")
            if (steps[0] > 0) != ascending:
                array = array.isel({name: slice(None, None, -1)})
    return array


def _stated_scale(attributes: Sequence[Mapping[Any, Any]]) -> tuple[float, float] | None:
    """The one scale that the bands' attributes state; None where they state none.

    Raises:
        DataError: where they differ.
    """
    found = set()
    for one in attributes:
        for scale, offset in (("scale_factor", "add_offset"), ("scales", "offsets")):
            if scale in one or offset in one:
                pairs = zip(np.atleast_1d(one.get(scale, 1.0)), np.atleast_1d(one.get(offset, 0.0)), strict=False)
                found |= {(float(factor), float(added)) for factor, added in pairs}
    found.discard((1.0, 0.0))
    if len(found) > 1:
        raise DataError(f"pixels: their attributes state several scales ({sorted(found)}); give bands of one scale")
    return next(iter(found), None)


def _sensor(array: Any) -> str | None:
    """What attributes or coordinates say of the satellite."""
    for name in SENSOR_KEYS:
        said = array.attrs.get(name)
        if said is None and name in array.coords:
            said = array[name].values
        texts = {str(text) for text in np.atleast_1d(said)} if said is not None else set()
        if texts:
            return " ".join(sorted(texts))
    return None


def _times(array: Any, lead: Sequence[Any]) -> Any:
    """Acquisition times that the coordinate `time` states: one for all, or one a patch; None where it is none."""
    if "time" not in array.coords or array["time"].dtype.kind != "M":
        return None
    time = array["time"]
    return time.values if time.dims in ((), tuple(lead)) else None


def _band_names(names: np.ndarray) -> tuple[str, ...] | None:
    """Names from a band coordinate; the numbers 1 to 7, in whatever order, are those of SR_B1..SR_B7."""
    if names.dtype.kind in "UOT" and len(names):
        return tuple(map(str, names))
    if names.dtype.kind in "iu" and sorted(names.tolist()) == list(range(1, len(OLI.bands) + 1)):
        return tuple(OLI.bands[number - 1] for number in names.tolist())
    return None


def _nodata(attributes: Mapping[Any, Any], encoding: Mapping[Any, Any]) -> float | None:
    """The fill value that a band's attributes, or its file's encoding, state: a number before NaN."""
    found = None
    for source in (attributes, encoding):
        for name in ("_FillValue", "nodata", "missing_value"):
            try:
                value = float(source[name])
            except (KeyError, TypeError, ValueError):
                continue
            if np.isfinite(value):
                return value
            found = value if np.isnan(value) else found
    return found
