"""A roofline drawn: limits as lines with the kernels below them, and what share each reaches."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm._optional import need
from rustllm.errors import ArgumentError

if TYPE_CHECKING:
    from os import PathLike

    from rustllm.bench.roofline import Roofline

__all__ = ["draw_roofline"]

_COLORS = {"int8": "#4c72b0", "float32": "#dd8452", "bfloat16": "#55a868"}
_MARKERS = {
    "matrix-vector": "o",
    "matrix-matrix": "s",
    "attention decode": "^",
    "attention prefill": "v",
}


def draw_roofline(roofline: Roofline, path: str | PathLike[str]) -> None:
    """Draw limits and kernels, a panel for each number of threads, and a bar for each kernel.

    Parameters
    ----------
    roofline : Roofline
    path : path
        Ends in ``.svg`` or ``.png``.

    Raises
    ------
    ArgumentError
        The name tells no format.
    MissingDependencyError
        matplotlib is not installed; it comes with the ``plot`` extra.
    FileMissingError, FileAccessError
        The file cannot be written.
    """
    format = check_format(path)
    # no state of pyplot's, no window
    new_figure = need("matplotlib.figure", "plot", "drawing needs").Figure
    from rustllm.serialize import atomic_write

    columns = len(roofline.peaks)
    figure = new_figure(figsize=(max(5.0 * columns, 8.0), 7.2), layout="constrained")
    grid = figure.add_gridspec(2, columns, height_ratios=(1.35, 1))
    for column, peaks in enumerate(roofline.peaks):
        kernels = [k for k in roofline.kernels if k.threads == peaks.threads]
        axes = figure.add_subplot(grid[0, column])
        _draw_limits(axes, peaks, [k.intensity for k in kernels])
        for kernel in kernels:
            axes.plot(
                kernel.intensity,
                kernel.operations_per_second / 1e9,
                marker=_MARKERS.get(kernel.group, "o"),
                color=_COLORS.get(kernel.kind, "black"),
                markersize=5,
                alpha=0.8,
                linestyle="none",
            )
        axes.set_title(f"{peaks.threads} thread{'s' if peaks.threads > 1 else ''}", fontsize=10)
        axes.set_xlabel("operations a byte")
        if column == 0:
            axes.set_ylabel("billion operations a second")
        axes.spines[["top", "right"]].set_visible(False)
        _add_legend(axes, roofline)
    if roofline.kernels:
        _draw_shares(figure.add_subplot(grid[1, :]), roofline)
    image = io.BytesIO()
    # Neither the date nor random names: the same figures give the same bytes.
    metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "rustllm", "svg.fonttype": "none"}):
        figure.savefig(image, format=format, dpi=130, metadata=metadata)
    with atomic_write(path) as file:
        file.write(image.getvalue())


def check_format(path: str | PathLike[str]) -> str:
    """Return the format that the name of a picture tells, before hours of measuring for it."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ArgumentError(f"{str(path)!r} is neither .svg nor .png")
    return suffix[1:]


def _draw_limits(axes: Any, peaks: Any, intensities: list[float]) -> None:
    low = min(intensities, default=1.0) / 2
    high = max([*intensities, 1.0]) * 2
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    axes.set_xlim(low, high)
    speed = peaks.read_bytes_per_second
    top = max(peaks.operations_per_second.values())
    axes.plot([low, top / speed], [low * speed / 1e9, top / 1e9], color="0.35", linewidth=1)
    axes.annotate(
        f"memory {speed / 1e9:.0f} GB/s",
        (low * 4, low * 4 * speed / 1e9),
        xytext=(-4, 8),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="0.35",
    )
    for kind, limit in peaks.operations_per_second.items():
        color = _COLORS.get(kind, "0.35")
        axes.plot([limit / speed, high], [limit / 1e9] * 2, color=color, linewidth=1)
        axes.annotate(
            f"{kind} {limit / 1e9:.0f}",
            (limit / speed, limit / 1e9),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=8,
            color=color,
        )


def _draw_shares(axes: Any, roofline: Roofline) -> None:
    """A bar for each kernel and number of threads."""
    counts = [peaks.threads for peaks in roofline.peaks]
    rows = list(dict.fromkeys((k.group, k.name) for k in roofline.kernels))
    width = 0.8 / len(counts)
    for kernel in roofline.kernels:
        turn = counts.index(kernel.threads)
        at = rows.index((kernel.group, kernel.name)) + (turn - (len(counts) - 1) / 2) * width
        color = _COLORS.get(kernel.kind, "black")
        axes.bar(at, 100 * kernel.share, width, color=color, alpha=1 / (1 + turn))
    labels = [f"{name}" if group.startswith("matrix") else group for group, name in rows]
    axes.set_xticks(range(len(rows)), labels, rotation=60, ha="right", fontsize=7)
    axes.tick_params("x", length=0)
    axes.set_xlim(-0.7, len(rows) - 0.3)
    axes.axhline(100, color="0.35", linewidth=1)
    axes.set_ylabel("per cent of the bound")
    for group in dict.fromkeys(group for group, _ in rows):
        members = [i for i, row in enumerate(rows) if row[0] == group]
        if group.startswith("matrix"):
            axes.text(members[0] - 0.4, 101, group, fontsize=8, va="bottom", color="0.25")
    axes.spines[["top", "right"]].set_visible(False)
    threads = " / ".join(map(str, counts))
    if len(counts) > 1:
        axes.set_title(f"dark to light: {threads} threads", fontsize=8, loc="right")


def _add_legend(axes: Any, roofline: Roofline) -> None:
    groups = dict.fromkeys(kernel.group for kernel in roofline.kernels)
    if not groups:
        return
    handles = [
        axes.plot([], [], marker=_MARKERS.get(g, "o"), color="0.4", linestyle="none", label=g)[0]
        for g in groups
    ]
    axes.legend(handles=handles, loc="lower right", fontsize=7, frameon=False)
