"""What `make demo` shows first: pictures and pages by the weights that come with the project."""

from pathlib import Path

import pytest
from conftest import ROOT

from docs import demo

pytestmark = pytest.mark.docs


def test_the_demo_begins_with_the_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(demo, "SCENE_SIZE", 120)
    monkeypatch.setattr(demo, "reproduce", lambda words: made.extend(words) or 0)
    made: list[str] = []
    assert demo.main(["--out", str(tmp_path)]) == 0
    for name in ("reconstructions/reconstructions_masked.png", "scene/quick_look.png", "explore.html"):
        assert (tmp_path / "shipped" / name).stat().st_size > 10_000
    assert f"out_dir={tmp_path}" in made, "and goes on with the reproduction"
