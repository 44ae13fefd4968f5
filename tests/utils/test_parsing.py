"""Damaged and hostile text ends in one line, soon: JSON, YAML, headers of arrays, wherever they come from."""

import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from classification_models.embeddings import read_embeddings, select_features
from classification_models.logistic_regression import LogisticRegressionModel
from configs.schema import read_config
from datasets.bigearthnet import read_labels
from datasets.pack.format import Header, open_pixels
from scenes.input.mtl import read_mtl
from scenes.input.stac import _read as read_item
from utils.errors import UserError
from utils.parsing import map_npy, parse_json, read_npz
from utils.yaml_values import load_value, load_yaml

DEEP = 50_000
HOSTILE_JSON = {
    "lists": "[" * DEEP + "]" * DEEP,
    "objects": '{"labels":' * DEEP + "1" + "}" * DEEP,
    "open": '{"labels": [' * DEEP,
    "long number": '{"labels": ' + "7" * 5000 + "}",
    "long number in a list": '{"labels": [' + "7" * 5000 + "]}",
    "no text": "\udcff",
    "a list": "[1, 2]",
    "other types": '{"labels": [[1], {"a": 2}]}',
}
READERS = {"label": read_labels, "MTL": read_mtl, "STAC": read_item}


@pytest.mark.parametrize("text", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_json_of_others(tmp_path, text, reader) -> None:
    path = tmp_path / "file_MTL.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    if reader is read_mtl and text in (HOSTILE_JSON["other types"], HOSTILE_JSON["a list"]):
        text = path.write_text("{}")
    refused(lambda: reader(path), path)


def refused(work, path) -> str:
    started = time.process_time()
    with pytest.raises(UserError) as caught:
        work()
    assert time.process_time() - started < 5
    assert str(path) in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def test_an_mtl_that_json_reads_and_a_walk_would_not(tmp_path) -> None:
    """Nesting that the parser takes and Python's own calls do not."""
    path = tmp_path / "s_MTL.json"
    path.write_text('{"A":' * 900 + '{"B": 1}' + "}" * 900)
    try:
        assert read_mtl(path) == {"B": "1"}
    except UserError as error:
        assert "nested too deeply" in str(error)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_YAML = {
    "alias bomb": BOMB,
    "alias bomb of a key that there is": BOMB + "training: {epochs: *i}\n",
    "merge bomb": "a: &a {x: 1}\n"
    + "".join(
        f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "alias of itself": "a: &a [*a]\n",
    "merge of itself": "a: &a\n  <<: *a\n  b: 1\n",
    "deep": "a: " + "[" * 700 + "]" * 700,
    "deep and open": "a: " + "{a: " * 700,
    "long number": "training: {epochs: " + "7" * 5000 + "}",
    "long hexadecimal": "training: {epochs: 0x" + "f" * 5000 + "}",
    "a tag that lies": "a: !!int x",
    "another": "a: !!timestamp x",
    "and another": "a: !!bool perhaps",
    "code": "a: !!python/object/apply:os.system [ls]",
    "very much": "# " + "x" * 300_000,
    "bytes": "a: \x01",
}


@pytest.mark.parametrize("text", HOSTILE_YAML.values(), ids=HOSTILE_YAML.keys())
def test_configs(tmp_path, text) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert "not valid YAML" in refused(lambda: read_config(str(path), [], ()), path)


def test_more_values_than_any_config_has(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("utils.yaml_values.MOST_VALUES", 1000)
    path = tmp_path / "config.yaml"
    path.write_text("a: [" + "1," * 1001 + "]")
    assert "more than 1,000 values" in refused(lambda: read_config(str(path), [], ()), path)


def test_values_of_the_command_line() -> None:
    for text in ("[" * 700, "7" * 5000, "0x" + "f" * 5000, '"'):
        with pytest.raises(yaml.YAMLError):
            load_value(text)
    assert load_value("7" * 90) == int("7" * 90)


def test_aliases_and_merges_of_ordinary_files_stay() -> None:
    text = "base: &base {a: 1, b: [1, 2]}\nother: {<<: *base, c: 3}\nlist: [*base, *base]\n"
    assert load_yaml(text)["other"] == {"a": 1, "b": [1, 2], "c": 3}
    assert load_yaml("") is None


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), ",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': '''",
    b"((((((((((((((((((((((" * 40,
    b"\x00\x01 = )",
    b"{'descr': '<f9', 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': {}, 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': '<f4', 'fortran_order': 7, 'shape': (-2, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 99999999999), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 200 + b"), }",
    b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }",
    b"{1: 2}",
    b"[]",
]


def npy(header: bytes) -> bytes:
    header = header.ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + np.zeros(6, np.float32).tobytes()


def packed(folder: Path, header: bytes) -> Path:
    (folder / "pixels.npy").write_bytes(npy(header))
    return folder / "pixels.npy"


def open_pack(path: Path) -> None:
    recipe = type("R", (), {"pixels_shape": staticmethod(lambda count: (2, 3))})
    open_pixels(path.parent, Header.model_construct(count=2, recipe=recipe))


def archived(folder: Path, *headers: bytes, names: tuple[str, ...] = ("format",)) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name, header in zip(names, headers, strict=True):
            archive.writestr(f"{name}.npy", npy(header))
    return folder / "a.npz"


@pytest.mark.parametrize("header", HEADERS[1:])
def test_damaged_headers_of_packs(tmp_path, header) -> None:
    assert map_npy(packed(tmp_path, HEADERS[0])).shape == (2, 3)
    path = packed(tmp_path, header)
    refused(lambda: open_pack(path), path)


@pytest.mark.parametrize("header", HEADERS[1:])
def test_damaged_headers_of_probes(tmp_path, header) -> None:
    path = archived(tmp_path, header)
    refused(lambda: LogisticRegressionModel.load(path), path)


@pytest.mark.parametrize("header", HEADERS[1:])
def test_damaged_headers_of_embeddings(tmp_path, header) -> None:
    """Of the numbers and of the labels beside them, both without an archive that was damaged."""
    labels = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }"
    for headers in ((header, labels), (HEADERS[0], header)):
        path = archived(tmp_path, *headers, names=("x_test", "y_test"))
        refused(lambda path=path: select_features(read_embeddings(path)), path)


def test_a_probe_that_unpacks_to_much_is_refused_before_it_is_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("classification_models.probe_formats.MOST_BYTES", 1 << 20)
    path = tmp_path / "probe.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("coef.npy", "w") as member:
        member.write(npy(HEADERS[0]))
        for _ in range(3):
            member.write(bytes(1 << 20))
    assert "unpacks to" in refused(lambda: LogisticRegressionModel.load(path), path)


def test_what_is_no_archive_and_no_json(tmp_path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ValueError):
        read_npz(tmp_path / "a.npz")
    assert parse_json(b'{"a": 1}') == {"a": 1} == json.loads('{"a": 1}')
