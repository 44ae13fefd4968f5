"""Styles that QGIS takes by itself (`.qml` beside a map): a ramp, and true colour; `land_cover` has that of classes."""

from pathlib import Path

from utils.files import write_text
from utils.sensors import Sensor

RAMP = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")
"""Cividis (Nuñez, Anderton and Renslow 2018): alike for people with and without red-green colour blindness."""
BRIGHTNESS = (0.0, 0.3)
"""Reflectances that are black and white in true colour."""


def style_ramp(path: Path, low: float, high: float) -> Path:
    """Write the style of a map of one band: numbers between two values on `RAMP`."""
    steps = [low + (high - low) * k / (len(RAMP) - 1) for k in range(len(RAMP))]
    items = "".join(
        f'<item value="{value:g}" label="{value:.2f}" color="{colour}" alpha="255"/>'
        for value, colour in zip(steps, RAMP, strict=True)
    )
    shader = f'<colorrampshader colorRampType="INTERPOLATED" minimumValue="{low:g}" maximumValue="{high:g}">'
    return _write(
        path,
        '<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" '
        f'classificationMin="{low:g}" classificationMax="{high:g}">'
        f"<rastershader>{shader}{items}</colorrampshader></rastershader></rasterrenderer>",
    )


def style_true_colour(path: Path, sensor: Sensor) -> Path:
    """Write the style of a map of a sensor's digital numbers."""
    low, high = (round((bound - sensor.offset) / sensor.scale) for bound in BRIGHTNESS)
    colours = ("red", "green", "blue")
    bands = {colour: sensor.bands.index(name) + 1 for colour, name in zip(colours, sensor.rgb_bands, strict=True)}
    stretched = "".join(
        f"<{colour}ContrastEnhancement><minValue>{low}</minValue><maxValue>{high}</maxValue>"
        f"<algorithm>StretchToMinimumMaximum</algorithm></{colour}ContrastEnhancement>"
        for colour in colours
    )
    places = " ".join(f'{colour}Band="{band}"' for colour, band in bands.items())
    renderer = f'<rasterrenderer type="multibandcolor" {places} opacity="1" alphaBand="-1">{stretched}</rasterrenderer>'
    return _write(path, renderer)


def _write(path: Path, renderer: str) -> Path:
    return write_text(path, f"<!DOCTYPE qgis>\n<qgis><pipe>{renderer}</pipe></qgis>\n")
