"""Scripts of the repository where a package named `datasets` is installed: they run from any folder."""

import pytest
from adapters import adapters_python, run
from conftest import ROOT
from scene_files import some_numbers, tiny_checkpoint, write_product

pytestmark = pytest.mark.adapters


def test_a_script_works_from_any_folder(tmp_path) -> None:
    """Also from one that has a folder `datasets` of its own."""
    python = adapters_python()
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("raise ImportError('not this one')")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    installed = run([python, "-c", "import datasets; print(hasattr(datasets, 'load_dataset'))"], elsewhere)
    if installed.returncode:
        pytest.skip("Hugging Face's datasets is not installed there (make test-adapters installs it)")
    assert installed.stdout.strip() == "True"
    scene, checkpoint = write_product(tmp_path / "scene", some_numbers((80, 80))), tiny_checkpoint(tmp_path / "t.pth")
    command = [python, ROOT / "embed_scene.py", "--scene", scene, "--checkpoint", checkpoint, "--device", "cpu"]
    done = run([*command, "--out", "out"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "embeddings.tif").is_file()
