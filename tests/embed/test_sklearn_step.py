"""The encoder as a scikit-learn transformer: pipelines, searches, copies, pickles, and scikit-learn's own checks."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from tiny_weights import tiny_model, write_tiny_checkpoint

from embed.sklearn_step import MoEMAETransformer, patch_rows
from models import build_model
from models.checkpoint import write_checkpoint
from utils.errors import CheckpointError, DataError
from utils.sensors import OLI


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth"))


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    """Two kinds of patches, told apart by their brightness."""
    rng = np.random.default_rng(0)
    low = rng.integers(8_000, 12_000, (8, 7, 40, 40), dtype=np.uint16)
    return np.concatenate([low, low + np.uint16(6_000)])


CLASSES = np.repeat([0, 1], 8)


# --------------------------------------------------------------------------- forms of X


def test_patches_rows_and_told_rows_are_the_same_as_embed(checkpoint, patches) -> None:
    model, step = tiny_model(), MoEMAETransformer(checkpoint, pool="mean")
    untold = step.fit_transform(patches)
    assert (untold.dtype, untold.shape) == (np.float32, (16, 24))
    np.testing.assert_array_equal(untold, model.embed(patches, pool="mean"))
    flat = patches.reshape(len(patches), -1)
    np.testing.assert_array_equal(step.fit(flat).transform(flat), untold)
    np.testing.assert_array_equal(step.transform(flat.astype(np.float64)), untold)
    told = {"when": "2017-06-13T10:10:31", "lat": np.linspace(40, 50, 16), "lon": 16.4}
    rows = patch_rows(patches, **told)
    assert rows.shape == (16, 7 * 1600 + 4)
    np.testing.assert_allclose(step.fit_transform(rows), model.embed(patches, pool="mean", **told), atol=1e-4)
    unknown = step.fit_transform(patch_rows(patches))  # NaN in the last columns: not known
    np.testing.assert_array_equal(unknown, untold)


def test_small_patches_and_other_bands(checkpoint, patches) -> None:
    eight = np.concatenate([patches, patches[:, :1]], axis=1)[:, :, :22, :22]
    step = MoEMAETransformer(checkpoint, crop="resize", bands=(*OLI.bands, "ST_B10"))
    expected = tiny_model().embed(eight[:, :7], crop="resize")
    np.testing.assert_array_equal(step.fit_transform(eight), expected)
    np.testing.assert_array_equal(step.fit_transform(patch_rows(eight)), expected)


@pytest.mark.parametrize("shape", [(4, 11_201), (4, 7, 1600), (4, 7 * 1600 + 3), (4, 3)])
def test_other_forms_are_refused(checkpoint, shape) -> None:
    with pytest.raises(ValueError, match=r"give \(patches, 7, height, width\)"):
        MoEMAETransformer(checkpoint).fit(np.full(shape, 9_000))


def test_what_the_model_does_not_know_is_refused(checkpoint, patches) -> None:
    step = MoEMAETransformer(checkpoint).fit(patches)
    with pytest.raises(DataError, match="reflectance"):
        step.transform(patches * 0.0000275 - 0.2)
    with pytest.raises(ValueError, match="expecting 7 features"):
        step.transform(patches[:, :6])
    with pytest.raises(DataError, match="bands, side, side"):
        patch_rows(patches[..., :39])
    for nothing in ("", "absent.pth"):
        with pytest.raises(CheckpointError):
            MoEMAETransformer(nothing).fit(patches)


# --------------------------------------------------------------------------- in a pipeline


def test_a_pipeline_and_a_search_over_it(checkpoint, patches) -> None:
    pipeline = make_pipeline(MoEMAETransformer(checkpoint, batch_size=8), StandardScaler(), LogisticRegression())
    assert pipeline.fit(patches, CLASSES).score(patches, CLASSES) == 1.0
    search = GridSearchCV(pipeline, {"moemaetransformer__pool": ["cls", "meta_cls"]}, cv=2)
    search.fit(patch_rows(patches, when="2017-06-13"), CLASSES)
    assert len(search.cv_results_["params"]) == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_names_of_columns(checkpoint, patches) -> None:
    step = MoEMAETransformer(checkpoint).fit(patches)
    assert list(step.get_feature_names_out())[:2] == ["moemaetransformer0", "moemaetransformer1"]
    pandas = pytest.importorskip("pandas")
    table = step.set_output(transform="pandas").transform(patches)
    assert isinstance(table, pandas.DataFrame) and table.shape == (16, 24)


# --------------------------------------------------------------------------- copies and pickles


def test_pickles_hold_no_weights_and_find_them_again(checkpoint, patches, tmp_path) -> None:
    path = tmp_path / "copy.pth"
    write_checkpoint(path, tiny_model(), epoch=0, best_train_loss=0.0)
    step = MoEMAETransformer(str(path)).fit(patches)
    expected = step.transform(patches)
    content = pickle.dumps(step)
    assert len(content) < 2_000 < sum(value.nbytes for value in tiny_model().state_dict().values())
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.transform(patches), expected)
    np.testing.assert_array_equal(step.transform(patches), expected)
    other = build_model(tiny_model().config, seed=1)
    write_checkpoint(path, other, epoch=0, best_train_loss=0.0)
    with pytest.raises(CheckpointError, match="holds other weights than when this was fitted"):
        pickle.loads(content).transform(patches)


def test_copies_are_unfitted(checkpoint, patches) -> None:
    step = MoEMAETransformer(checkpoint, pool="mean", scale=(1.0, 0.0)).fit(patches)
    copy = clone(step)
    assert copy.get_params() == step.get_params()
    assert not hasattr(copy, "weights_sha256_")


# --------------------------------------------------------------------------- scikit-learn's checks


class AnyNumbers(MoEMAETransformer):
    """The same step for the small tables that scikit-learn's checks make: they become patches of 8 x 8 pixels.

    Everything but the form of X is the step's own.
    """

    def __init__(self, checkpoint: str = "", *, pool: str = "cls") -> None:
        super().__init__(checkpoint, pool=pool, crop="resize")

    def _split(self, X: np.ndarray, fields: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        repeated = np.tile(np.asarray(X, np.float64), (1, -(-7 * 64 // X.shape[1])))[:, : 7 * 64]
        return (12_000 + 1_000 * np.tanh(repeated)).reshape(-1, 7, 8, 8), np.full((len(X), 4), np.nan)


WITHOUT_A_TABLE = (
    "cloneable",
    "tags_renamed",
    "valid_tag_types",
    "estimator_repr",
    "no_attributes_set_in_init",
    "do_not_raise_errors_in_init",
    "mixin_order",
    "complex_data",
    "empty_data",
    "sparse",
    "unfitted",
    "default_constructible",
    "get_params_invariance",
    "set_params",
    "check_fit1d",
)
"""Of scikit-learn's checks those that need no fit on a table of any width."""


def checks_of(step: MoEMAETransformer, parts: tuple[str, ...] = ("",)) -> list:
    checks = [check for _, check in estimator_checks_generator(step, legacy=True)]
    return [check for check in checks if any(part in check.func.__name__ for part in parts)]


@pytest.mark.parametrize(
    "check", checks_of(MoEMAETransformer(), WITHOUT_A_TABLE), ids=lambda check: check.func.__name__
)
def test_checks_of_the_step_itself(checkpoint, check) -> None:
    check(MoEMAETransformer(checkpoint))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("check", checks_of(AnyNumbers()), ids=lambda check: check.func.__name__)
def test_all_checks_of_the_step_but_for_the_form_of_x(checkpoint, check) -> None:
    check(AnyNumbers(checkpoint))
