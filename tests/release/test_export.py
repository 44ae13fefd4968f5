"""Releases: what is in the folder, that its programs compute what the model does, and what is refused."""

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tiny_weights
import torch
from conftest import ROOT
from tiny_weights import tiny_model, write_tiny_checkpoint

from export import main
from models import MOEMAE
from models.kernels import backend, linear
from release import check as checking
from release import formats
from release.check import check_patches, largest_difference
from release.folder import atomic_folder
from release.pickles import find_pickles
from release.program import EmbeddingProgram, foreign_operators, trace
from utils.data_config import DATASETS, BigEarthNetInfo
from utils.errors import CheckpointError, ConfigError, UserError
from utils.files import sha256

pytestmark = pytest.mark.programs

STATISTICS = BigEarthNetInfo.NAME
MORNING = "2017-06-13T10:10:31"
MORNING_COLUMNS = [24, 10, 48.2, 16.4]
checkpoint = tiny_weights.checkpoint

pytest.importorskip("safetensors", reason="safetensors is not installed (pip install -r requirements-export.txt)")


def need_onnx() -> None:
    for package in formats.FORMATS["onnx"].packages:
        pytest.importorskip(package, reason=f"{package} is not installed (pip install -r requirements-export.txt)")


@pytest.fixture(scope="module")
def release(tmp_path_factory, checkpoint):
    """A whole export of the tiny model."""
    need_onnx()
    folder = tmp_path_factory.mktemp("releases") / "tiny"
    assert main(["--checkpoint", str(checkpoint), "--out", str(folder), "--pool", "mean"]) == 0
    return folder


@pytest.fixture
def patches() -> np.ndarray:
    pixels = np.random.default_rng(0).integers(7_300, 20_000, (5, 7, 40, 40), dtype=np.uint16)
    pixels[1, :, :9] = 0
    pixels[2] = 0
    return pixels


# --------------------------------------------------------------------------- the folder


def test_the_files_and_what_is_said(release, checkpoint) -> None:
    names = sorted(path.name for path in release.iterdir() if path.suffix != ".py")
    assert names == ["README.md", "config.json", "embed_mean.onnx", "embed_mean.pt2", "model.safetensors"]
    about = json.loads((release / "config.json").read_text())
    for name, entry in about["programs"].items():
        assert entry["sha256"] == sha256(release / name)
        assert 0 <= entry["largest_difference"] <= checking.TOLERANCE
    assert about["statistics"]["mean"] == list(DATASETS[STATISTICS].STATISTICS.mean)
    assert about["inputs"]["metadata"]["columns"] == ["week", "hour", "lat", "lon"]
    assert about["output"] == {"name": "embedding", "pool": "mean", "width": 24}
    assert not [path for path in release.parent.iterdir() if path != release], "nothing is left beside it"


def test_weights_come_back_bit_for_bit(release) -> None:
    again, model = MOEMAE.from_pretrained(release), tiny_model()
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_no_file_is_a_pickle_and_none_is_unpickled(release, checkpoint, tmp_path, monkeypatch) -> None:
    for path in release.iterdir():
        assert find_pickles(path) == []
    with zipfile.ZipFile(release / "embed_mean.pt2") as archive:
        assert any("weight" in name for name in archive.namelist()), "the archive was looked into"
    assert [name.rpartition("/")[2] for name in find_pickles(checkpoint)] == ["data.pkl"]
    (tmp_path / "p").write_bytes(pickle.dumps({"a": [1]}))
    assert find_pickles(tmp_path / "p") == ["p"]

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something is unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    MOEMAE.from_pretrained(release)
    for form, ending in (("torch_export", ".pt2"), ("onnx", ".onnx")):
        formats.FORMATS[form].load(release / f"embed_mean{ending}")


def test_no_path_of_this_machine_is_inside(release) -> None:
    for path in release.iterdir():
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = b"".join(archive.read(name) for name in archive.namelist())
        assert str(ROOT).encode() not in content, path.name
        assert b".py" not in content or path.name in ("README.md", "config.json") or path.suffix == ".py", path.name


# --------------------------------------------------------------------------- the programs


@pytest.mark.parametrize("form", ["torch_export", "onnx"])
def test_programs_compute_what_embed_computes(release, patches, form: str) -> None:
    run = formats.FORMATS[form].load(release / f"embed_mean{formats.FORMATS[form].ending}")
    metadata = np.full((5, 4), np.nan, np.float32)
    model = MOEMAE.from_pretrained(release)
    with pytest.warns(UserWarning, match="no valid pixel"):
        untold = model.embed(patches, pool="mean")
        told = model.embed(patches, when=MORNING, lat=48.2, lon=16.4, pool="mean")
    assert np.isnan(untold[2]).all()
    np.testing.assert_allclose(run(patches.astype(np.int32), metadata), untold, atol=1e-5)
    metadata[:] = MORNING_COLUMNS
    np.testing.assert_allclose(run(patches.astype(np.int32), metadata), told, atol=1e-5)
    for count in (1, 2, 33):
        assert run(np.full((count, 7, 40, 40), 9_000, np.int32), np.zeros((count, 4), np.float32)).shape == (count, 24)


def test_programs_pool_as_embed_does(checkpoint, patches, tmp_path) -> None:
    folder = tmp_path / "release"
    assert main(["--checkpoint", str(checkpoint), "--out", str(folder), "--pool", "meta_cls"]) == 0
    assert json.loads((folder / "config.json").read_text())["output"]["width"] == 5 * 24
    expected = tiny_model().embed(patches[:2], when=MORNING, lat=48.2, lon=16.4, pool="meta_cls")
    metadata = np.array([MORNING_COLUMNS] * 2, np.float32)
    for form in ("torch_export", "onnx"):
        run = formats.FORMATS[form].load(folder / f"embed_meta_cls{formats.FORMATS[form].ending}")
        np.testing.assert_allclose(run(patches[:2].astype(np.int32), metadata), expected, atol=1e-5)


def test_the_published_hour_and_fill_are_inside(patches) -> None:
    model = tiny_model(published_behaviour=True)
    program = EmbeddingProgram(model, "cls", STATISTICS)
    metadata = torch.tensor([MORNING_COLUMNS] * 5, dtype=torch.float32)
    with torch.no_grad():
        found = program(torch.from_numpy(patches.astype(np.int32)), metadata).numpy()
    np.testing.assert_allclose(found, model.embed(patches, when=MORNING, lat=48.2, lon=16.4), atol=1e-5)
    assert np.isfinite(found).all()
    other = tiny_model().embed(patches[:1], when=MORNING, lat=48.2, lon=16.4)
    assert not np.allclose(found[:1], other, atol=1e-3)


@pytest.mark.parametrize("onednn", [True, False])
def test_programs_hold_only_operators_of_pytorch(monkeypatch, onednn: bool) -> None:
    """Also where the model itself takes the matrix product of another library."""
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch is built without oneDNN")
    fast = linear.onednn if onednn else linear.plain
    for name in ("CPU", "CPU_INFERENCE", "COMPILED_CPU", "COMPILED_CPU_INFERENCE"):
        monkeypatch.setattr(backend, name, getattr(backend, name)._replace(linear=fast))
    traced = trace(tiny_model(depth=1), "cls", STATISTICS)
    assert foreign_operators(traced) == []
    assert traced.example_inputs is None
    assert not any("decoder" in name for name in traced.state_dict)
    operators = {str(node.target) for node in traced.graph.nodes}
    assert "aten.linear.default" in operators
    pads = [max(node.args[1]) for node in traced.graph.nodes if str(node.target) == "aten.pad.default"]
    assert all(pad == 1 for pad in pads), "true widths, and the one column that leaves hidden keys out"


def test_foreign_operators_are_seen(monkeypatch) -> None:
    import release.program as program

    monkeypatch.setattr(program, "OWN_OPERATORS", "another")
    with pytest.raises(UserError, match=r"would need aten\."):
        trace(tiny_model(depth=1), "cls", STATISTICS)


def test_a_program_that_differs_is_refused(patches) -> None:
    model = tiny_model()
    asked = check_patches(model, "cls", STATISTICS)
    assert asked.expected.shape == (8, 24)
    assert (asked.pixels == 0).all(axis=1).any(), "some have fill"
    assert np.isnan(asked.columns).any() and np.isfinite(asked.columns).any()

    def almost(by: float):
        rows = iter((slice(1), slice(1, None)))
        return lambda pixels, metadata: asked.expected[next(rows)] + np.float32(by)

    assert largest_difference(almost(5e-5), asked) == pytest.approx(5e-5, rel=0.1)
    with pytest.raises(UserError, match=r"3\.0e-04 away"):
        largest_difference(almost(3e-4), asked)
    with pytest.raises(UserError, match="nan away"):
        largest_difference(almost(np.nan), asked)
    with pytest.raises(UserError, match=r"gives \(8, 24\), the model \(8, 23\)"):
        largest_difference(almost(0), asked._replace(expected=asked.expected[:, :23]))


def test_nothing_is_left_of_an_export_that_fails(tmp_path, monkeypatch) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "shallow.pth", depth=1)
    monkeypatch.setattr(checking, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="away from the model"):
        main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "r"), "--programs", "torch_export"])
    assert list(tmp_path.iterdir()) == [checkpoint]


# --------------------------------------------------------------------------- refusals


def test_refusals(tmp_path, checkpoint, monkeypatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    start = ["--checkpoint", str(checkpoint), "--out"]
    with pytest.raises(UserError, match="full: exists"):
        main([*start, str(tmp_path / "full")])
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        main(["--checkpoint", str(tmp_path / "absent.pth"), "--out", str(tmp_path / "r")])
    with pytest.raises(ConfigError, match="unknown 'pickle'; use torch_export, onnx or none"):
        main([*start, str(tmp_path / "r"), "--programs", "pickle"])
    four = write_tiny_checkpoint(tmp_path / "four.pth", in_channels=4)
    with pytest.raises(ConfigError, match="takes 4 bands"):
        main(["--checkpoint", str(four), "--out", str(tmp_path / "r")])
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError, match=r"needs the packages onnxscript \(pip install -r requirements-export"):
        main([*start, str(tmp_path / "r")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.pth", "full"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_folder_is_whole_or_absent(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").write_text("x")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()  # an empty one is no obstacle
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("x")
        assert list((tmp_path / "a").iterdir()) == []
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "x"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        with atomic_folder(tmp_path / "file" / "a"):
            pass


# --------------------------------------------------------------------------- without PyTorch


def python(code: str, *arguments: object, cwd: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_onnx_example_needs_no_pytorch(release, patches, tmp_path) -> None:
    np.save(tmp_path / "patches.npy", patches[:2])
    code = (
        "import sys, runpy; sys.modules['torch'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0], None, '__main__')"
    )
    arguments = ["--model", release / "embed_mean.onnx", "--pixels", tmp_path / "patches.npy", "--when", MORNING]
    arguments += ["--lat", "48.2", "--lon", "16.4", "--out", tmp_path / "out.npy", "--threads", "1"]
    done = python(code, ROOT / "release" / "onnx_example.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = tiny_model().embed(patches[:2], when=MORNING, lat=48.2, lon=16.4, pool="mean")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_the_card_s_examples_run(release, tmp_path) -> None:
    """Each as it stands, in a folder where its files are."""
    blocks = re.findall(r"```python\n(.*?)```", (release / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3 and "AutoModel" in blocks[1]  # which tests/adapters runs
    ours = blocks[0].replace("path/to/this/folder", str(release))
    ours = f"import numpy as np\npixels = np.full((2, 7, 40, 40), 9000, np.uint16)\n{ours}"
    for text in (ours, f"import sys\nsys.modules['torch'] = None\n{blocks[2]}"):
        done = python(f"{text}\nassert vectors.shape == (2, 24)", cwd=release)
        assert done.returncode == 0, done.stderr


def test_latency_is_measured_in_turns(release, capsys) -> None:
    from release.latency import main as measure

    assert measure(["--folder", str(release), "--turns", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["milliseconds", "MOEMAE.embed", "torch_export", "onnx"]
    assert all(float(value) > 0 for line in lines[1:] for value in line.split()[1:])
