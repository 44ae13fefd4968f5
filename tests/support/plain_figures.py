"""Figures that are drawn once when they are saved: to find their layout first costs thrice as much."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure


def drawn_once(savefig: Callable[..., None]) -> Callable[..., None]:
    """`Figure.savefig` without the search for a layout."""

    def plain(figure: Figure, *args: Any, **options: Any) -> None:
        with patch.object(Figure, "get_layout_engine", lambda figure: None):
            savefig(figure, *args, **options)

    return plain
