"""What `rustllm.corpus.stats` says, drawn: lengths of documents, and bytes a token by source."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm._optional import need
from rustllm.errors import ArgumentError
from rustllm.serialize import atomic_write

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["draw_stats"]

_SOURCES = 20


def draw_stats(facts: dict[str, Any], path: PathLikeStr) -> None:
    """Draw statistics of a corpus.

    Parameters
    ----------
    facts : dict
        As `rustllm.corpus.stats` returns them.
    path : path
        Ends in ``.png``, ``.svg`` or ``.html``; the last is a page of its own with the figures.

    Raises
    ------
    ArgumentError
        The name tells no format.
    MissingDependencyError
        matplotlib is not installed; it comes with the ``plot`` extra.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg", ".html"):
        raise ArgumentError(f"{str(path)!r} is neither .png, .svg nor .html")
    image = _draw(facts, "png" if suffix == ".png" else "svg")
    if suffix == ".html":
        image = _page(facts, image.decode("utf-8")).encode()
    with atomic_write(path) as file:
        file.write(image)


def _draw(facts: dict[str, Any], format: str) -> bytes:
    # no state of pyplot's, no window
    new_figure = need("matplotlib.figure", "plot", "drawing needs").Figure
    sources = sorted(
        (s for s in facts["sources"] if s.get("bytes_per_token")), key=lambda s: -s["tokens"]
    )
    shown = sources[:_SOURCES][::-1]
    figure = new_figure(
        figsize=(8, 3.2 + (0.6 + 0.28 * len(shown) if shown else 0)), layout="tight"
    )
    ratio = [3.2, max(0.9, 0.28 * len(shown))]
    axes = (
        figure.subplots(2, 1, gridspec_kw={"height_ratios": ratio})
        if shown
        else [figure.subplots()]
    )
    rows = facts["histogram"]
    labels = [f"{row['from']:,}–{row['to']:,}" for row in rows]
    axes[0].bar(range(len(rows)), [row["documents"] for row in rows], color="#4c72b0", width=0.9)
    axes[0].set_xticks(range(len(rows)), labels, rotation=45, ha="right", fontsize=7)
    axes[0].set_ylabel("documents")
    axes[0].set_xlabel("tokens of a document")
    axes[0].set_title(f"{facts['documents']:,} documents, {facts['tokens']:,} tokens")
    if shown:
        names = [Path(source["path"]).name[-40:] for source in shown]
        values = [source["bytes_per_token"] for source in shown]
        bars = axes[1].barh(range(len(shown)), values, color="#dd8452")
        axes[1].bar_label(bars, fmt="%.2f", padding=3, fontsize=7)
        axes[1].set_yticks(range(len(shown)), names, fontsize=7)
        axes[1].set_xlabel("bytes of text a token, the largest sources")
        axes[1].margins(x=0.1)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    # Neither the date nor random names: the same facts give the same bytes.
    metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "rustllm", "svg.fonttype": "none"}):
        figure.savefig(out, format=format, dpi=120, metadata=metadata)
    return out.getvalue()


def _page(facts: dict[str, Any], svg: str) -> str:
    lines = [("tokens", facts["tokens"]), ("documents", facts["documents"])]
    lines += [("bytes of text", facts["text_bytes"])]
    lines += [(f"length, {k.replace('_', ' ')}", f"{v:,.1f}") for k, v in facts["lengths"].items()]
    cells = "".join(
        f"<tr><th>{escape(name)}</th>"
        f"<td>{value if isinstance(value, str) else format(value, ',')}</td></tr>"
        for name, value in lines
    )
    rows = "".join(
        f"<tr><td>{escape(source['path'])}</td><td>{source['documents']:,}</td>"
        f"<td>{source['tokens']:,}</td><td>{source.get('bytes_per_token') or 0:.3f}</td></tr>"
        for source in facts["sources"]
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Corpus</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .2rem 1rem .2rem 0; }}
td + td, th + td {{ text-align: right; font-variant-numeric: tabular-nums; }}
.wide {{ overflow-x: auto; }}
svg {{ max-width: 100%; height: auto; background: white; border-radius: 6px; }}
</style>
<h1>Corpus</h1>
<table>{cells}</table>
<div class="wide">{svg[svg.index("<svg") :]}</div>
<div class="wide"><table>
<tr><th>source</th><th>documents</th><th>tokens</th><th>bytes a token</th></tr>{rows}</table></div>
</html>
"""
