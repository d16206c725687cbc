"""How a model stretches its rotary embedding beyond the context it was first trained with.

Every kind comes down to factors that divide the frequencies, a factor on positions and one on
cosine and sine. Sources: linear interpolation (Chen et al. 2023), YaRN (Peng et al. 2023), LongRoPE
(Ding et al. 2024), and the ramp over wave lengths that Llama 3.1 published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rustllm.models.hf_config import HFConfig

__all__ = [
    "Rotation",
    "llama3_factors",
    "longrope_magnitude",
    "read_rotation",
    "yarn_factors",
    "yarn_magnitude",
]

FACTORS = "rope_freqs.weight"
SHORT_FACTORS = "rope_factors_short.weight"
LONG_FACTORS = "rope_factors_long.weight"


@dataclass(frozen=True)
class Rotation:
    """A rotary embedding as a configuration describes it.

    Parameters
    ----------
    n_rot : int
    base : float
    scale : float
        Factor on positions.
    magnitude : float
    factors, long_factors : ndarray of float32, optional
        What divides the frequencies; the second beyond `original_ctx` tokens of context.
    original_ctx : int
    n_ctx : int
        Context that the scaling makes possible; 0: it does not say.
    """

    n_rot: int
    base: float
    scale: float = 1.0
    magnitude: float = 1.0
    factors: NDArray[np.float32] | None = None
    long_factors: NDArray[np.float32] | None = None
    original_ctx: int = 0
    n_ctx: int = 0

    def fields(self) -> dict[str, Any]:
        """The fields of a `TransformerConfig`."""
        return {
            "n_rot": self.n_rot,
            "rope_base": self.base,
            "rope_scale": self.scale,
            "rope_magnitude": self.magnitude,
            "rope_factors": self.factors is not None and self.long_factors is None,
            "rope_original_ctx": self.original_ctx if self.long_factors is not None else 0,
        }

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """The factors by the names that plans use."""
        if self.factors is None:
            return {}
        if self.long_factors is None:
            return {FACTORS: self.factors}
        return {SHORT_FACTORS: self.factors, LONG_FACTORS: self.long_factors}


def frequencies(n_dims: int, base: float) -> NDArray[np.float64]:
    """Angle that each pair turns by from one position to the next, float64 ``[n_dims / 2]``."""
    return float(base) ** (-2.0 * np.arange(n_dims // 2) / n_dims)


def llama3_factors(
    n_dims: int, base: float, factor: float, low: float, high: float, original_ctx: int
) -> NDArray[np.float32]:
    """Divisors of the frequencies: 1 for short waves, `factor` for long ones, a ramp between.

    Examples
    --------
    >>> from rustllm.models.rope_scaling import llama3_factors
    >>> llama3_factors(8, 500000.0, 8.0, 1.0, 4.0, 8192)
    array([1.       , 1.       , 2.6945298, 8.       ], dtype=float32)
    """
    turns = original_ctx * frequencies(n_dims, base) / (2 * math.pi)  # in the first context
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - share) / factor + share)).astype(np.float32)


def yarn_factors(
    n_dims: int,
    base: float,
    factor: float,
    original_ctx: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> NDArray[np.float32]:
    """Divisors of the frequencies: 1 for what turns fast, `factor` for what turns slowly.

    Examples
    --------
    >>> from rustllm.models.rope_scaling import yarn_factors
    >>> yarn_factors(8, 10000.0, 4.0, 8192)
    array([1.       , 1.       , 1.3333334, 2.       ], dtype=float32)
    """

    def pair(turns: float) -> float:
        """The (fractional) pair that turns this often in the first context."""
        return n_dims * math.log(original_ctx / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, n_dims - 1)
    ramp = np.clip((np.arange(n_dims // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)
    return np.asarray(1.0 / (ramp / factor + 1.0 - ramp), np.float32)


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """What YaRN multiplies cosine and sine by."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def longrope_magnitude(factor: float, original_ctx: int) -> float:
    """What LongRoPE multiplies cosine and sine by."""
    return 1.0 if factor <= 1 else math.sqrt(1.0 + math.log(factor) / math.log(original_ctx))


def read_rotation(hf: HFConfig, head_dim: int, section: str | None = None) -> Rotation:
    """Read ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of older files.

    Raises
    ------
    ModelError
        A number is missing or cannot be.
    UnsupportedError
        The kind of scaling is not implemented.
    """
    key = "rope_parameters" if hf.get("rope_parameters") is not None else "rope_scaling"
    told = hf.get(key)
    if told is None:
        told = {}
    if section is not None and isinstance(told, dict) and section in told:
        told = told[section]
    if not isinstance(told, dict):
        raise hf.error(key, f"expected an object, got {told!r}")
    part = type(hf)(hf.path, {**hf.values, **told})
    base = part.number("rope_theta", 10000.0)
    share = part.number("partial_rotary_factor", 1.0)
    n_rot = int(head_dim * share)
    if not 0.0 < share <= 1.0 or n_rot < 2 or n_rot % 2:
        raise hf.error("partial_rotary_factor", f"{share} of {head_dim} dimensions cannot rotate")
    if not base > 1.0:
        raise hf.error("rope_theta", f"expected a number above 1, got {base}")
    kind = told.get("rope_type", told.get("type", "default"))
    if kind in ("default", "dynamic"):  # dynamic changes nothing within the trained context
        return Rotation(n_rot, base)
    if kind == "linear":
        return Rotation(n_rot, base, scale=1.0 / _factor(part))
    if kind == "llama3":
        low, high = part.number("low_freq_factor"), part.number("high_freq_factor")
        if not low < high:
            raise hf.error("high_freq_factor", f"{high} is not above low_freq_factor {low}")
        original = _original(part)
        return Rotation(
            n_rot, base, factors=llama3_factors(n_rot, base, _factor(part), low, high, original)
        )
    if kind == "yarn":
        return _yarn(part, n_rot, base)
    if kind in ("longrope", "su"):
        return _longrope(part, n_rot, base)
    raise hf.unsupported(
        key,
        f"position scaling of type {kind!r} is not supported",
        "supported: linear, llama3, yarn, longrope",
    )


def _factor(part: HFConfig) -> float:
    factor = part.number("factor")
    if not 0.0 < factor < 1e6:
        raise part.error("factor", f"expected a positive number, got {factor}")
    return factor


def _original(part: HFConfig) -> int:
    key = "original_max_position_embeddings"
    original = part.integer(key, part.get("max_position_embeddings"))
    if not 2 <= original <= 1 << 28:
        raise part.error(key, f"expected a number of tokens, got {original}")
    return original


def _yarn(part: HFConfig, n_rot: int, base: float) -> Rotation:
    factor, original = _factor(part), _original(part)
    fast, slow = part.number("beta_fast", 32.0), part.number("beta_slow", 1.0)
    if not 0.0 < slow < fast:
        raise part.error("beta_fast", f"{fast} is not above beta_slow {slow}")
    magnitude = yarn_magnitude(factor)
    scale, scale_all = part.number("mscale", 0.0), part.number("mscale_all_dim", 0.0)
    if scale and scale_all:
        magnitude = yarn_magnitude(factor, scale) / yarn_magnitude(factor, scale_all)
    return Rotation(
        n_rot,
        base,
        magnitude=part.number("attention_factor", magnitude),
        factors=yarn_factors(
            n_rot,
            base,
            factor,
            original,
            beta_fast=fast,
            beta_slow=slow,
            truncate=part.flag("truncate", True),
        ),
        n_ctx=int(original * factor),
    )


def _longrope(part: HFConfig, n_rot: int, base: float) -> Rotation:
    original = _original(part)
    factor = part.get("factor")
    stretch = (
        part.integer("max_position_embeddings") / original if factor is None else _factor(part)
    )
    return Rotation(
        n_rot,
        base,
        magnitude=part.number("attention_factor", longrope_magnitude(stretch, original)),
        factors=_listed(part, "short_factor", n_rot // 2),
        long_factors=_listed(part, "long_factor", n_rot // 2),
        original_ctx=original,
    )


def _listed(part: HFConfig, key: str, n: int) -> NDArray[np.float32]:
    values = part.get(key)
    if not isinstance(values, list) or len(values) != n:
        raise part.error(key, f"expected a list of {n} numbers")
    if not all(isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in values):
        raise part.error(key, "expected positive finite numbers")
    return np.array(values, np.float32)
