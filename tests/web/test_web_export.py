"""The page as a folder: what is fetched for it, its program and its probe."""

import shutil

import numpy as np
import pytest
import torch
from scene_files import write_probe

from classification_models.logistic_regression import LogisticRegressionModel
from export import main
from models.pooling import MAP_POOLINGS
from models.pretrained import load_with_path
from release.check import check_patches
from release.program import MapProgram
from scenes.products.land_cover import load_probe
from utils.errors import UserError
from web.export import ASSETS, plain_probe
from web.runtime import PACKAGES, place_runtime


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("pool", MAP_POOLINGS)
def test_vectors_of_patches_have_the_pooled_one_as_their_mean(checkpoint, pool) -> None:
    """Also of windows that are partly hidden, and without time and place."""
    model, _ = load_with_path(checkpoint)
    patches = check_patches(model, pool, "bigearthnet_ls")
    program = MapProgram(model, pool, "bigearthnet_ls").eval()
    with torch.no_grad():
        found = program(torch.from_numpy(patches.pixels.astype(np.int32)), torch.from_numpy(patches.metadata))
    assert found.shape == (len(patches.pixels), 100, patches.expected.shape[1])
    np.testing.assert_allclose(found.mean(dim=1), patches.expected, atol=1e-4)


def test_two_classes_have_a_row_each(checkpoint, tmp_path) -> None:
    model, _ = load_with_path(checkpoint)
    for classes in (2, 3):
        probe = load_probe(write_probe(tmp_path / f"{classes}.npz", checkpoint, classes=classes), model.config)
        plain = plain_probe(probe)
        x = np.random.default_rng(1).normal(size=(20, probe.width))
        logits = (x - plain["mean"]) / plain["scale"] @ np.transpose(plain["coef"]) + plain["intercept"]
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, probe.model.predict_proba(x), atol=1e-6)
        assert len(plain["columns"]) == classes and len(plain["colours"]) == len(plain["classes"])


def test_a_label_that_never_changed_is_certain(checkpoint, tmp_path) -> None:
    model, _ = load_with_path(checkpoint)
    x = np.random.default_rng(0).normal(size=(40, 24))
    y = np.stack([x[:, 0] > 0, np.ones(40, bool), np.zeros(40, bool)], axis=1).astype(int)
    path = tmp_path / "labels.npz"
    LogisticRegressionModel(scale=True, multilabel=True).fit(x, y).save(path)
    plain = plain_probe(load_probe(path, model.config))
    assert plain["multilabel"] and np.isfinite(plain["intercept"]).all()
    assert plain["intercept"][1] > 1e6 and plain["intercept"][2] < -1e6


def fake_npm(folder, monkeypatch, script: str) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(npm))


def test_without_npm_a_line_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError) as error:
        place_runtime(tmp_path, None)
    assert "npm" in one_line(error) and "--web-runtime DIR" in one_line(error)


def test_without_network_a_line_says_what_to_do(tmp_path, monkeypatch) -> None:
    fake_npm(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(UserError) as error:
        place_runtime(tmp_path, None)
    assert "no network" in one_line(error) and "npm install --prefix DIR onnxruntime-web@" in one_line(error)


def test_another_archive_is_refused(tmp_path, monkeypatch) -> None:
    fake_npm(tmp_path, monkeypatch, "echo other > other-1.0.0.tgz")
    with pytest.raises(UserError, match="integrity hash"):
        place_runtime(tmp_path, None)


def test_files_of_a_given_folder_are_compared(tmp_path) -> None:
    package = PACKAGES[0]
    given, target = tmp_path / "given", tmp_path / "target"
    target.mkdir()
    with pytest.raises(UserError, match=f"has no dist/.* of npm's {package.name}@{package.version}"):
        place_runtime(target, given)
    for name in package.files:
        path = given / "node_modules" / package.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something else")
    with pytest.raises(UserError, match="SHA-256 differs"):
        place_runtime(target, given)
    assert not list(target.iterdir())


def test_what_stands_in_the_way_stays(checkpoint, tmp_path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine").touch()
    with pytest.raises(UserError, match="exists; remove it or give another folder"):
        main(["--checkpoint", str(checkpoint), "--web", str(tmp_path / "page")])
    with pytest.raises(UserError, match="--probe: is for --web"):
        main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--probe", "p.npz"])
    with pytest.raises(UserError, match="--pool all: cells of a map have none"):
        main(["--checkpoint", str(checkpoint), "--web", str(tmp_path / "new"), "--pool", "all"])
    assert not (tmp_path / "new").exists()


def test_the_page_asks_nobody_else(checkpoint) -> None:
    """Its policy, and no address of another server in its source."""
    page = (ASSETS / "index.html").read_text()
    assert "default-src 'none'" in page and "connect-src 'self'" in page
    for path in ASSETS.rglob("*.*"):
        text = path.read_text().replace("http://localhost:8000", "")
        assert "http:" not in text and "https:" not in text, path
