"""Regression and classification: the optimum is reached, labels and shapes survive, files load."""

import numpy as np
import pytest

from rustllm import LinearModel
from rustllm.errors import ArgumentError, FileFormatError, StateError
from rustllm.models.lbfgs import minimize
from rustllm.models.linear_model import LinearConfig
from rustllm.testing import ConfigConformance, ModelConformance


class TestConfig(ConfigConformance):
    def make(self):
        return LinearConfig("classification", l2=0.5)


class TestModel(ModelConformance):
    def make(self):
        return LinearModel().fit([[0.0], [1.0]], [0.0, 1.0])


def data(n=200, p=5, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, p)), random


def test_least_squares_finds_what_made_the_data():
    x, random = data()
    coef, intercept = random.standard_normal((3, 5)), random.standard_normal(3)
    y = x @ coef.T + intercept
    model = LinearModel().fit(x, y)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, intercept, atol=1e-10)
    np.testing.assert_allclose(model.predict(x), y, atol=1e-10)
    assert model.score(x, y) == pytest.approx(1) and model.n_parameters == 18
    flat = LinearModel().fit(x, y[:, 0])
    assert flat.coef_.shape == (5,) and isinstance(flat.intercept_, float)
    assert flat.predict(x).shape == (200,)


@pytest.mark.parametrize("l2", [0.0, 3.0])
@pytest.mark.parametrize("intercept", [False, True])
def test_the_gradient_of_least_squares_vanishes(l2, intercept):
    x, random = data()
    y, weights = random.standard_normal((200, 2)), random.random(200)
    model = LinearModel(l2=l2, intercept=intercept).fit(x, y, sample_weight=weights)
    wrong = (model.predict(x) - y) * weights[:, None]
    np.testing.assert_allclose(wrong.T @ x + l2 * model.coef_, 0, atol=1e-9)
    if intercept:
        np.testing.assert_allclose(wrong.sum(0), 0, atol=1e-9)
    else:
        assert (model.intercept_ == 0).all()


def test_columns_that_depend_on_each_other_have_the_smallest_answer():
    x, random = data()
    double = np.hstack([x, x])
    y = x @ random.standard_normal(5)
    model = LinearModel().fit(double, y)
    np.testing.assert_allclose(model.coef_[:5], model.coef_[5:], atol=1e-9)
    np.testing.assert_allclose(model.predict(double), y, atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("intercept", [False, True])
def test_the_gradient_of_the_logistic_loss_vanishes(n_classes, intercept):
    x, random = data(300)
    labels = np.array(["a", "bb", "c", "d"])[random.integers(0, n_classes, 300)]
    weights = random.random(300)
    model = LinearModel("classification", l2=0.7, intercept=intercept, tolerance=1e-9)
    model.fit(x, labels, sample_weight=weights)
    assert model.converged_ and 1 < model.n_iter_ < 1000
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    wrong = (probabilities - (labels[:, None] == model.classes_)) * weights[:, None]
    if n_classes == 2:
        wrong = wrong[:, 1:]
    np.testing.assert_allclose(wrong.T @ x + 0.7 * model.coef_, 0, atol=1e-5)
    assert (model.predict(x) == model.classes_[probabilities.argmax(1)]).all()
    assert model.score(x, labels) == (model.predict(x) == labels).mean()


def test_what_can_be_separated_is():
    x, random = data(400, 8)
    truth = (x @ random.standard_normal((8, 3))).argmax(1)
    model = LinearModel("classification", l2=1e-3).fit(x, truth)
    assert model.score(x, truth) > 0.98
    shuffled = LinearModel("classification", l2=1e-3).fit(x[::-1], truth[::-1])
    np.testing.assert_allclose(model.coef_, shuffled.coef_, atol=0.05 * np.abs(model.coef_).max())


@pytest.mark.parametrize("labels", [np.array(["no", "yes"]), np.array([3, -1]), [True, False]])
def test_a_model_goes_to_a_file_and_back(tmp_path, labels):
    x, _ = data()
    y = np.array(labels)[(x[:, 0] > 0).astype(int)]
    model = LinearModel("classification", l2=0.1, tolerance=1e-4).fit(x, y)
    model.save(tmp_path / "m")
    again = LinearModel.load(tmp_path / "m")
    assert again.config == model.config and again.n_iter_ == model.n_iter_
    assert again.predict(x).tolist() == model.predict(x).tolist()
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))
    regression = LinearModel(l2=2).fit(x, x[:, 0])
    regression.save(tmp_path / "r")
    assert np.array_equal(LinearModel.load(tmp_path / "r").predict(x), regression.predict(x))


def test_a_file_that_is_something_else_is_refused(tmp_path):
    from rustllm.serialize import dump

    for tree in (
        {"kind": "other"},
        [1],
        {"kind": "rustllm.LinearModel"},
        {"kind": "rustllm.LinearModel", "config": {"task": "regression"}, "coef": np.zeros((2, 3)),
         "intercept": np.zeros(3), "flat": False, "n_iter": 1, "converged": True},
        {"kind": "rustllm.LinearModel", "config": {"task": "classification"},
         "coef": np.zeros((2, 3)), "intercept": np.zeros(2), "flat": False, "n_iter": 1,
         "converged": True, "classes": ["a", "b"]},
    ):  # fmt: skip
        dump(tree, tmp_path / "m")
        with pytest.raises(FileFormatError, match="no linear model"):
            LinearModel.load(tmp_path / "m")


X = np.zeros((4, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LinearModel("clustering"), "task"),
        (lambda: LinearModel(l2=-1), "l2"),
        (lambda: LinearModel(max_iterations=0), "max_iterations"),
        (lambda: LinearModel(tolerance=0), "tolerance"),
        (lambda: LinearModel().fit([1.0, 2.0], [1.0, 2.0]), "n_features"),
        (lambda: LinearModel().fit(X, [1.0, 2.0]), "rows"),
        (lambda: LinearModel().fit(X, ["a"] * 4), "numbers"),
        (lambda: LinearModel().fit(X, [1, 2, np.nan, 4]), "row 2"),
        (lambda: LinearModel().fit([[1.0], [np.inf]], [1, 2]), "row 1"),
        (lambda: LinearModel().fit(X, np.ones(4), sample_weight=[1, 1, 1]), "sample_weight"),
        (lambda: LinearModel().fit(X, np.ones(4), sample_weight=[1, 1, 1, -1]), "sample_weight"),
        (lambda: LinearModel("classification").fit(X, ["a"] * 4), "two classes"),
        (lambda: LinearModel("classification").fit(X, np.ones((4, 2))), "labels"),
        (lambda: LinearModel().fit(X, np.ones(4)).predict(np.ones((3, 5))), "2 features"),
        (lambda: LinearModel().fit(X, np.ones(4)).score(X, np.ones(4)), "vary"),
        (lambda: LinearModel().fit(X, np.ones(4)).score(X, np.ones(3)), "must be"),
    ],
)
def test_what_does_not_fit_is_said(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()


def test_nothing_is_known_before_it_is_learnt():
    model = LinearModel()
    assert not hasattr(model, "coef_") and "not fitted" in repr(model)
    with pytest.raises(StateError, match="learnt nothing"):
        model.predict(X)
    with pytest.raises(StateError, match="no classes"):
        model.fit(X, np.ones(4)).predict_proba(X)
    assert not hasattr(model, "classes_")
    with pytest.raises(AttributeError):
        model.no_such_thing  # noqa: B018


def test_the_solver_says_when_it_ran_out_of_steps_and_finds_a_curved_valley():
    def valley(x):
        a, b = x
        value = (1 - a) ** 2 + 100 * (b - a * a) ** 2
        return value, np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])

    start = np.array([-1.2, 1.0])
    short = minimize(valley, start, max_iterations=3, tolerance=1e-8)
    assert not short.converged and short.n_iterations == 3 and short.value < valley(start)[0]
    found = minimize(valley, start, max_iterations=500, tolerance=1e-8)
    assert found.converged and np.allclose(found.x, 1)
