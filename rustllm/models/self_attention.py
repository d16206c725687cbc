"""Multi-head self-attention as a module of its own: projections around `rustllm.ops.attention`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rustllm import ops
from rustllm.errors import ArgumentError, FileFormatError, ModelError, TensorError
from rustllm.traits.config import ModelConfig
from rustllm.traits.model import Loaded, Model

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["AttentionConfig", "SelfAttention"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AttentionConfig(ModelConfig):
    """Hyper-parameters of a `SelfAttention`, under GGUF's names.

    Parameters
    ----------
    n_embd : int
        Width of what goes in and comes out.
    n_heads : int
    n_kv_heads : int, optional
        Divides `n_heads`; as many by default.
    head_dim : int, optional
        ``n_embd // n_heads`` by default.
    causal : bool
        A token sees itself and those before it.
    window : int
        Only so many of them; 0 for all.
    rope_base : float
        Rotate queries and keys by their positions; 0 for not.
    bias : bool
        Whether the projections have one.
    """

    n_embd: int
    n_heads: int
    n_kv_heads: int = 0
    head_dim: int = 0
    causal: bool = True
    window: int = 0
    rope_base: float = 0.0
    bias: bool = False
    architecture: str = "self-attention"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_kv_heads", self.n_kv_heads or self.n_heads)
        if not self.head_dim and self.n_heads > 0:
            object.__setattr__(self, "head_dim", self.n_embd // self.n_heads)

    def validate(self) -> None:
        """Raise ModelError when the hyper-parameters contradict each other."""
        if min(self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim) < 1:
            raise ModelError("widths and numbers of heads must be at least 1")
        if self.n_heads % self.n_kv_heads:
            raise ModelError(f"{self.n_kv_heads} KV heads do not divide {self.n_heads} heads")
        if self.window < 0 or not (self.rope_base >= 0 and np.isfinite(self.rope_base)):
            raise ModelError("window and rope_base must not be negative")
        if self.rope_base and self.head_dim % 2:
            raise ModelError(f"a head of {self.head_dim} dimensions cannot be rotated in pairs")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by name."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {
            "q.weight": (q, self.n_embd),
            "k.weight": (kv, self.n_embd),
            "v.weight": (kv, self.n_embd),
            "output.weight": (self.n_embd, q),
        }
        if self.bias:
            found |= {name.replace("weight", "bias"): shape[:1] for name, shape in found.items()}
        return found


class SelfAttention(Model[Loaded]):
    """Self-attention over rows of embeddings.

    Parameters
    ----------
    n_embd, n_heads : int
    n_kv_heads, head_dim : int, optional
    causal : bool
    window : int
    rope_base : float
    bias : bool
        As in `AttentionConfig`.
    weights : mapping, optional
        ``q.weight``, ``k.weight``, ``v.weight``, ``output.weight`` and, with `bias`, the same with
        ``bias``; float arrays or, for the matrices, `rustllm.ops.QuantizedArray`. By default
        random, uniform within ``sqrt(3 / n_in)``, so that variances are kept.
    seed : int
        Of the random weights.

    Raises
    ------
    ModelError
        The settings contradict each other.
    TensorError
        A weight is missing, too many, of the wrong shape, or not finite.

    Notes
    -----
    Immutable; threads may share one.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import SelfAttention
    >>> layer = SelfAttention(n_embd=8, n_heads=2, seed=0)
    >>> x = np.ones((5, 8), np.float32)
    >>> layer(x).shape
    (5, 8)
    """

    def __init__(
        self,
        n_embd: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = True,
        window: int = 0,
        rope_base: float = 0.0,
        bias: bool = False,
        weights: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        for name, given in (("n_kv_heads", n_kv_heads), ("head_dim", head_dim)):
            if given is not None and given < 1:
                raise ModelError(f"{name} must be at least 1, got {given}")
        self._config = AttentionConfig(
            n_embd, n_heads, n_kv_heads or 0, head_dim or 0, causal, window, rope_base, bias
        )
        self._config.validate()
        if weights is None:
            weights = _random(self._config, seed)
        self._weights = _check(weights, self._config)

    @property
    def config(self) -> AttentionConfig:
        """The hyper-parameters."""
        return self._config

    @property
    def weights(self) -> dict[str, Any]:
        """The weights by name; arrays are read-only."""
        return dict(self._weights)

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(shape)) for shape in self._config.shapes().values())

    def forward(
        self,
        x: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        threads: int | None = None,
    ) -> Floats:
        """Mix the rows of each sequence.

        Parameters
        ----------
        x : array_like, ``[..., n_tokens, n_embd]``
        mask : array_like, optional
            As for `rustllm.ops.attention`, beside `causal`.
        positions : array_like of int, ``[n_tokens]``, optional
            For the rotation; 0, 1, 2, ... by default.
        threads : int, optional

        Returns
        -------
        ndarray
            float32, of the shape of `x`.
        """
        self.require(Loaded)
        c = self._config
        rows = np.asarray(x)
        if rows.ndim < 2 or rows.shape[-1] != c.n_embd:
            raise ArgumentError(f"x must be [..., n_tokens, {c.n_embd}], got {list(rows.shape)}")
        q = self._project(rows, "q", c.n_heads, threads)
        k = self._project(rows, "k", c.n_kv_heads, threads)
        v = self._project(rows, "v", c.n_kv_heads, threads)
        if c.rope_base:
            places = np.arange(rows.shape[-2]) if positions is None else positions
            q = ops.rope(q, places, base=c.rope_base, threads=threads)
            k = ops.rope(k, places, base=c.rope_base, threads=threads)
        mixed = ops.attention(
            q, k, v, causal=c.causal, window=c.window or None, mask=mask, threads=threads
        )
        joined = np.moveaxis(mixed, -3, -2).reshape(*rows.shape[:-1], c.n_heads * c.head_dim)
        w = self._weights
        return ops.linear(joined, w["output.weight"], w.get("output.bias"), threads=threads)

    __call__ = forward

    def _project(self, x: NDArray[Any], name: str, n_heads: int, threads: int | None) -> Floats:
        w = self._weights
        out = ops.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"), threads=threads)
        return np.moveaxis(out.reshape(*x.shape[:-1], n_heads, self._config.head_dim), -2, -3)

    def save(self, path: PathLikeStr) -> None:
        """Write settings and weights to a file: versioned, checksummed, nothing is executed."""
        from rustllm.serialize import dump

        weights = {
            name: {"type": w.type, "shape": list(w.shape), "blocks": w.data}
            if isinstance(w, ops.QuantizedArray)
            else w
            for name, w in self._weights.items()
        }
        tree = {"config": self._config.to_dict(), "weights": weights}
        dump({"kind": "rustllm.SelfAttention", **tree}, path)

    @classmethod
    def load(cls, path: PathLikeStr) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileFormatError
            The file is damaged or holds something else.
        """
        from rustllm.serialize import load

        tree = load(path)
        if not isinstance(tree, dict) or tree.get("kind") != "rustllm.SelfAttention":
            raise FileFormatError("this file holds no self-attention", path=path)
        try:
            config = AttentionConfig.from_dict(tree["config"])
            weights = {
                name: ops.QuantizedArray(w["blocks"], w["type"], w["shape"])
                if isinstance(w, dict)
                else w
                for name, w in tree["weights"].items()
            }
            options = config.to_dict()
            del options["architecture"]
            return cls(**options, weights=weights)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(
                f"this file holds no self-attention: {error}", path=path
            ) from error

    def __repr__(self) -> str:
        c = self._config
        return f"<SelfAttention: {c.n_embd} wide, {c.n_heads} heads of {c.head_dim}>"


def _random(config: AttentionConfig, seed: int) -> dict[str, Floats]:
    random = np.random.default_rng(seed)
    out = {}
    for name, shape in config.shapes().items():
        bound = np.sqrt(3 / shape[-1]) if len(shape) == 2 else 0.0
        out[name] = random.uniform(-bound, bound, shape).astype(np.float32)
    return out


def _check(weights: Mapping[str, Any], config: AttentionConfig) -> dict[str, Any]:
    shapes = config.shapes()
    if extra := sorted(set(weights) - set(shapes)):
        raise TensorError(f"there is no weight {extra[0]!r}", key=extra[0])
    out: dict[str, Any] = {}
    for name, shape in shapes.items():
        if name not in weights:
            raise TensorError(f"the weight {name!r} is missing", key=name)
        value = weights[name]
        if not isinstance(value, ops.QuantizedArray):
            value = np.array(value, np.float32)
            if not np.isfinite(value).all():
                raise TensorError(f"{name} holds a value that is not finite", key=name)
            value.flags.writeable = False
        if tuple(value.shape) != shape:
            raise TensorError(f"{name} must be {list(shape)}, got {list(value.shape)}", key=name)
        out[name] = value
    return out
