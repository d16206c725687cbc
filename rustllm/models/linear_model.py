"""Linear and logistic regression: the small models that sit on top of embeddings.

Training needs no automatic differentiation: least squares has a solution in closed form, and the
gradient of the logistic loss is two products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rustllm.errors import ArgumentError, FileFormatError, ModelError, StateError
from rustllm.models.lbfgs import minimize
from rustllm.traits.config import ModelConfig
from rustllm.traits.model import Loaded, Model

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["LinearConfig", "LinearModel"]

Floats = NDArray[np.float64]
TASKS = ("regression", "classification")


@dataclass(frozen=True)
class LinearConfig(ModelConfig):
    """Hyper-parameters of a `LinearModel`.

    Parameters
    ----------
    task : {"regression", "classification"}
    l2 : float
        Weight of half the squared coefficients beside the sum of the losses; the intercept is free.
    intercept : bool
    max_iterations : int
        Steps of the solver, for classification.
    tolerance : float
        Largest component of the mean gradient at which it stops.
    """

    task: str = "regression"
    l2: float = 0.0
    intercept: bool = True
    max_iterations: int = 1000
    tolerance: float = 1e-6
    architecture: str = "linear"

    def validate(self) -> None:
        """Raise ArgumentError for a setting that is out of its range."""
        if self.task not in TASKS:
            raise ArgumentError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if not (self.l2 >= 0 and np.isfinite(self.l2)):
            raise ArgumentError(f"l2 must be finite and not negative, got {self.l2}")
        if self.max_iterations < 1:
            raise ArgumentError(f"max_iterations must be at least 1, got {self.max_iterations}")
        if not self.tolerance > 0:
            raise ArgumentError(f"tolerance must be positive, got {self.tolerance}")


class LinearModel(Model[Loaded]):
    """A linear model with `fit` and `predict`.

    Parameters
    ----------
    task : {"regression", "classification"}
        Least squares, or logistic regression (softmax over more than two classes).
    l2 : float
        Ridge penalty: half of it times the squared coefficients is added to the sum of the losses
        (half the squared error, or the negative log-likelihood).
    intercept : bool
        Whether to fit one; it is not penalised.
    max_iterations, tolerance
        When the solver of classification stops.

    Attributes
    ----------
    coef_ : ndarray
        ``float64 [n_outputs, n_features]``, or ``[n_features]`` for a target of one dimension; for
        classification ``[n_classes, n_features]``, one row for two classes.
    intercept_ : ndarray or float
    classes_ : ndarray
        Labels in the order of the scores; classification only.
    n_iter_ : int
        Steps that the solver took.
    converged_ : bool
        Whether it reached its tolerance.

    Raises
    ------
    ArgumentError
        A setting is out of its range; data has the wrong shape, or holds values that are not
        finite.

    Notes
    -----
    `fit` replaces what was learnt in one assignment, so other threads that predict see the old
    model or the new one. Computes in float64. Least squares costs O(n p^2) by singular values,
    which also answers where columns depend on each other (smallest norm); classification takes
    L-BFGS steps of O(n p k).

    Examples
    --------
    >>> from rustllm import LinearModel
    >>> model = LinearModel().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> model.predict([[10.0]]).round(6)
    array([21.])
    >>> words = LinearModel("classification", l2=0.1)
    >>> words.fit([[0.0], [1.0], [4.0], [5.0]], ["low", "low", "high", "high"]).predict([[0.5]])
    array(['low'], dtype='<U4')
    """

    def __init__(
        self,
        task: str = "regression",
        *,
        l2: float = 0.0,
        intercept: bool = True,
        max_iterations: int = 1000,
        tolerance: float = 1e-6,
    ) -> None:
        self._config = LinearConfig(task, l2, intercept, max_iterations, tolerance)
        self._config.validate()
        self._fitted: dict[str, Any] | None = None

    @property
    def config(self) -> LinearConfig:
        """The hyper-parameters."""
        return self._config

    @property
    def n_parameters(self) -> int:
        """Number of coefficients and intercepts."""
        fitted = self._known()
        return int(fitted["coef"].size + fitted["intercept"].size)

    def __getattr__(self, name: str) -> Any:
        # scikit-learn's names for what was learnt; they exist once it was.
        if name in ("coef_", "intercept_", "classes_", "n_iter_", "converged_"):
            fitted = self.__dict__.get("_fitted")
            if fitted is not None and name[:-1] in fitted:
                value = fitted[name[:-1]]
                if name in ("coef_", "intercept_") and fitted["flat"]:
                    return value[0] if name == "coef_" else float(value[0])
                return value
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def fit(self, x: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from rows of features and their targets.

        Parameters
        ----------
        x : array_like, ``[n, n_features]``
        y : array_like
            Numbers ``[n]`` or ``[n, n_outputs]``; for classification labels ``[n]`` of any kind.
        sample_weight : array_like, ``[n]``, optional
            How often each row counts.

        Returns
        -------
        LinearModel
            The model itself.
        """
        self.require(Loaded)
        features = _matrix(x)
        weights = _weights(sample_weight, len(features))
        if self._config.task == "regression":
            self._fitted = self._fit_squares(features, y, weights)
        else:
            self._fitted = self._fit_logistic(features, y, weights)
        return self

    def _fit_squares(self, x: Floats, y: ArrayLike, weights: Floats) -> dict[str, Any]:
        targets = np.asarray(y)
        if targets.dtype.kind not in "fiub" or targets.ndim not in (1, 2):
            raise ArgumentError("y must be numbers, [n] or [n, n_outputs]")
        flat = targets.ndim == 1
        targets = targets.astype(np.float64).reshape(len(targets), -1)
        _same_length(x, targets)
        _finite(targets, "y")
        centre_x, centre_y = np.zeros(x.shape[1]), np.zeros(targets.shape[1])
        if self._config.intercept:
            centre_x = weights @ x / weights.sum()
            centre_y = weights @ targets / weights.sum()
        scale = np.sqrt(weights)[:, None]
        a, b = (x - centre_x) * scale, (targets - centre_y) * scale
        if self._config.l2 > 0:
            a = np.vstack([a, np.sqrt(self._config.l2) * np.eye(x.shape[1])])
            b = np.vstack([b, np.zeros((x.shape[1], b.shape[1]))])
        coef = np.linalg.lstsq(a, b, rcond=None)[0].T
        intercept = centre_y - coef @ centre_x
        return {
            "coef": coef, "intercept": intercept, "flat": flat, "n_iter": 1, "converged": True,
        }  # fmt: skip

    def _fit_logistic(self, x: Floats, y: ArrayLike, weights: Floats) -> dict[str, Any]:
        labels = np.asarray(y)
        if labels.ndim != 1:
            raise ArgumentError(f"y must be labels, [n], got {list(labels.shape)}")
        _same_length(x, labels)
        if labels.dtype.kind == "f":
            _finite(labels, "y")
        classes, index = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ArgumentError("classification needs examples of at least two classes")
        loss = _logistic_loss(x, index, len(classes), weights, self._config)
        n_rows = 1 if len(classes) == 2 else len(classes)
        width = x.shape[1] + self._config.intercept
        found = minimize(
            loss,
            np.zeros(n_rows * width),
            max_iterations=self._config.max_iterations,
            tolerance=self._config.tolerance,
        )
        table = found.x.reshape(n_rows, width)
        intercept = table[:, -1].copy() if self._config.intercept else np.zeros(n_rows)
        return {
            "coef": table[:, : x.shape[1]].copy(), "intercept": intercept, "flat": False,
            "classes": classes, "n_iter": found.n_iterations, "converged": found.converged,
        }  # fmt: skip

    def _known(self) -> dict[str, Any]:
        self.require(Loaded)
        if self._fitted is None:
            raise StateError("the model has learnt nothing yet", hint="call fit(x, y) first")
        return self._fitted

    def decision_function(self, x: ArrayLike) -> Floats:
        """Return the scores of rows, ``[n, n_outputs]``; ``[n]`` for one target or two classes."""
        fitted = self._known()
        features = _matrix(x, fitted["coef"].shape[1])
        scores: Floats = features @ fitted["coef"].T + fitted["intercept"]
        single = fitted["flat"] or ("classes" in fitted and len(fitted["classes"]) == 2)
        return scores[:, 0] if single else scores

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the predicted numbers, or labels, of rows."""
        scores = self.decision_function(x)
        fitted = self._known()
        if "classes" not in fitted:
            return scores
        best = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: NDArray[Any] = fitted["classes"][best]
        return labels

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Return the probability of each class, ``[n, n_classes]``."""
        if "classes" not in self._known():
            raise StateError("a regression has no classes to give probabilities of")
        scores = self.decision_function(x)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        return np.exp(_log_softmax(scores))

    def score(self, x: ArrayLike, y: ArrayLike) -> float:
        """Return the share of right labels, or for regression the coefficient R squared."""
        predicted = self.predict(x)
        truth = np.asarray(y)
        if predicted.shape != truth.shape:
            raise ArgumentError(f"y must be {list(predicted.shape)}, got {list(truth.shape)}")
        if self._config.task == "classification":
            return float((predicted == truth).mean())
        rest = ((truth - predicted) ** 2).sum(axis=0)
        spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
        if not np.all(spread > 0):
            raise ArgumentError("the targets do not vary: R squared is not defined")
        return float(np.mean(1 - rest / spread))

    def save(self, path: PathLikeStr) -> None:
        """Write the model to a file: versioned, checksummed, nothing in it is executed.

        Raises
        ------
        StateError
            Nothing was learnt yet.
        """
        from rustllm.serialize import dump

        fitted = dict(self._known())
        if "classes" in fitted and fitted["classes"].dtype.kind not in "biuf":
            fitted["classes"] = [str(label) for label in fitted["classes"]]
        dump({"kind": "rustllm.LinearModel", "config": self._config.to_dict(), **fitted}, path)

    @classmethod
    def load(cls, path: PathLikeStr) -> Self:
        """Read a model that `save` wrote.

        Raises
        ------
        FileFormatError
            The file is damaged or holds something else.
        """
        from rustllm.serialize import load

        tree = load(path)
        if not isinstance(tree, dict) or tree.pop("kind", None) != "rustllm.LinearModel":
            raise FileFormatError("this file holds no linear model", path=path)
        try:
            config = LinearConfig.from_dict(tree.pop("config"))
            coef = np.array(tree["coef"], np.float64)
            intercept = np.array(tree["intercept"], np.float64)
            fitted = {
                "coef": coef, "intercept": intercept, "flat": bool(tree["flat"]),
                "n_iter": int(tree["n_iter"]), "converged": bool(tree["converged"]),
            }  # fmt: skip
            if coef.ndim != 2 or intercept.shape != coef.shape[:1] or len(coef) == 0:
                raise ModelError("coefficients and intercepts do not fit")
            if config.task == "classification":
                fitted["classes"] = classes = np.array(tree["classes"])
                if classes.ndim != 1 or len(coef) != (1 if len(classes) == 2 else len(classes)):
                    raise ModelError("coefficients and classes do not fit")
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"this file holds no linear model: {error}", path=path) from error
        model = cls(
            config.task,
            l2=config.l2,
            intercept=config.intercept,
            max_iterations=config.max_iterations,
            tolerance=config.tolerance,
        )
        model._fitted = fitted
        return model

    def __repr__(self) -> str:
        if self._fitted is None:
            return f"<LinearModel for {self._config.task}, not fitted>"
        n_outputs, n_features = self._fitted["coef"].shape
        return f"<LinearModel for {self._config.task}: {n_features} features, {n_outputs} outputs>"


def _log_softmax(scores: Floats) -> Floats:
    shifted = scores - scores.max(axis=1, keepdims=True)
    out: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out


def _logistic_loss(
    x: Floats, index: NDArray[Any], n_classes: int, weights: Floats, config: LinearConfig
) -> Callable[[Floats], tuple[float, Floats]]:
    """The mean of the negative log-likelihood plus penalty, and its gradient."""
    n_rows = 1 if n_classes == 2 else n_classes
    n_features = x.shape[1]
    width = n_features + config.intercept
    total = weights.sum()
    truth = np.zeros((len(x), n_classes))
    truth[np.arange(len(x)), index] = 1

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(n_rows, width)
        scores = x @ table[:, :n_features].T
        if config.intercept:
            scores = scores + table[:, -1]
        if n_rows == 1:
            scores = np.hstack([np.zeros_like(scores), scores])
        logprobs = _log_softmax(scores)
        value = -(weights * logprobs[np.arange(len(x)), index]).sum()
        value += config.l2 / 2 * (table[:, :n_features] ** 2).sum()
        wrong = (np.exp(logprobs) - truth) * weights[:, None]
        if n_rows == 1:
            wrong = wrong[:, 1:]
        gradient = np.empty_like(table)
        gradient[:, :n_features] = wrong.T @ x + config.l2 * table[:, :n_features]
        if config.intercept:
            gradient[:, -1] = wrong.sum(axis=0)
        return float(value / total), gradient.ravel() / total

    return loss


def _matrix(x: ArrayLike, width: int | None = None) -> Floats:
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ArgumentError(f"x is no matrix: {error}") from error
    if array.dtype.kind not in "fiub" or array.ndim != 2 or 0 in array.shape:
        raise ArgumentError(f"x must be numbers, [n, n_features], got {list(array.shape)}")
    if width is not None and array.shape[1] != width:
        raise ArgumentError(f"the model takes {width} features, x has {array.shape[1]}")
    array = array.astype(np.float64, copy=False)
    _finite(array, "x")
    return array


def _weights(weights: ArrayLike | None, n: int) -> Floats:
    if weights is None:
        return np.ones(n)
    array = np.asarray(weights, np.float64)
    if array.shape != (n,) or not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise ArgumentError(f"sample_weight must be {n} numbers, none negative, not all zero")
    return array


def _same_length(x: Floats, y: NDArray[Any]) -> None:
    if len(x) != len(y):
        raise ArgumentError(f"x has {len(x)} rows and y has {len(y)}")


def _finite(array: NDArray[Any], name: str) -> None:
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ArgumentError(f"{name} holds a value that is not finite in row {row}", index=row)
