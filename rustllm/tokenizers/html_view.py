"""The tokens of a text as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from rustllm.tokenizers.segments import Segment
from rustllm.tokenizers.terminal_view import visible

__all__ = ["html_view"]

_N_COLOURS = 6

_HEAD = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root{{--page:#fff;--ink:#1c1d21;--soft:#5b5e66;--line:#d8dae0;--bar:#f5f6f8;
--c0:#cfe4ff;--c1:#ffe3a8;--c2:#cdf0c4;--c3:#ffd3de;--c4:#e4ddfb;--c5:#c5eeee;
--hot:#1c1d21;--special:#9c1c1c;--special-ink:#fff}}
@media (prefers-color-scheme:dark){{:root{{--page:#16171a;--ink:#e8e9ed;--soft:#a3a7b0;
--line:#34373e;--bar:#1f2125;--c0:#1d3f66;--c1:#5a4410;--c2:#1f4d2a;--c3:#5c2638;--c4:#40346f;
--c5:#124b4e;--hot:#fff;--special:#ff9d9d;--special-ink:#2b0707}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}}
header,main{{max-width:60rem;margin:0 auto;padding:1rem}}
header{{padding-top:1.5rem}}
h1{{font-size:1.25rem;margin:0 0 .5rem;overflow-wrap:anywhere}}
dl{{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin:0}}
dl div{{display:flex;gap:.4rem}}
dt{{color:var(--soft)}}dd{{margin:0;font-variant-numeric:tabular-nums}}
main{{padding-bottom:9rem;white-space:pre-wrap;overflow-wrap:anywhere;
font:15px/2 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}}
i{{font-style:normal;padding:.2em 0;border-radius:.2em;cursor:default}}
i:hover,i:focus,i.on{{outline:2px solid var(--hot);outline-offset:-1px}}
i b{{font-weight:400;opacity:.55}}
i.x{{font-size:.75em;padding:.35em .15em}}
i.s{{background:var(--special)!important;color:var(--special-ink);font-weight:600}}
{colours}
aside{{position:fixed;left:0;right:0;bottom:0;background:var(--bar);
border-top:1px solid var(--line);padding:.6rem 1rem;min-height:4.6rem}}
aside dl{{max-width:60rem;margin:0 auto;gap:.1rem 1.5rem}}
aside p{{max-width:60rem;margin:0 auto;color:var(--soft)}}
aside dd{{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}}
</style>
"""

_FOOT = """\
</main>
<aside aria-live="polite"><p>Point at a token, or move with the arrow keys: its id, bytes and \
characters show here.</p></aside>
<script>
(()=>{const main=document.querySelector("main"),box=document.querySelector("aside");let on=null;
const show=e=>{if(!e||e===on)return;if(on)on.classList.remove("on");on=e;e.classList.add("on");
const f=e.dataset.t.split("|"),dl=document.createElement("dl");
["token","id","bytes","characters"].forEach((n,k)=>{if(!f[k])return;
const d=document.createElement("div"),a=document.createElement("dt"),b=document.createElement("dd");
a.textContent=n;b.textContent=f[k];d.append(a,b);dl.append(d)});box.replaceChildren(dl)};
const at=e=>e.target.closest&&e.target.closest("main i");
for(const n of["mouseover","click"])main.addEventListener(n,e=>show(at(e)));
document.addEventListener("keydown",e=>{const d={ArrowRight:1,ArrowLeft:-1}[e.key];if(!d)return;
let n=on?(d>0?on.nextElementSibling:on.previousElementSibling):main.querySelector("i");
while(n&&n.tagName!=="I")n=d>0?n.nextElementSibling:n.previousElementSibling;
if(n){show(n);n.scrollIntoView({block:"nearest"});e.preventDefault()}})})();
</script>
</html>
"""


def html_view(segments: Sequence[Segment], *, name: str, n_characters: int) -> Iterator[str]:
    """Write the page, piece by piece.

    Parameters
    ----------
    segments : sequence of Segment
    name : str
        Of the tokenizer, for the heading.
    n_characters : int
        Length of the text.

    Yields
    ------
    str
        Parts of the page, to be written one after another as UTF-8.

    Notes
    -----
    The page names no other resource, and its policy forbids it to fetch any. It follows the
    reader's choice of light or dark, and reflows on a narrow screen. Text is escaped: what it
    spells is shown, never run.

    Examples
    --------
    >>> page = "".join(html_view([Segment(7, b"<b>", 0, 3, False)], name="toy", n_characters=3))
    >>> "&lt;b&gt;" in page and 'data-t="1 of 1|7|3c 62 3e|0–3"' in page
    True
    """
    n_bytes = sum(len(segment.data) for segment in segments)
    colours = "\n".join(f"i.c{i}{{background:var(--c{i})}}" for i in range(_N_COLOURS))
    yield _HEAD.format(title=escape(f"Tokens of {name}"), colours=colours)
    yield f"<header><h1>{escape(name)}</h1><dl>"
    facts = [
        ("tokens", f"{len(segments):,}"),
        ("characters", f"{n_characters:,}"),
        ("bytes", f"{n_bytes:,}"),
    ]
    if segments:
        facts.append(("bytes per token", f"{n_bytes / len(segments):.2f}"))
        facts.append(("distinct", f"{len({segment.id for segment in segments}):,}"))
    for what, value in facts:
        yield f"<div><dt>{what}</dt><dd>{value}</dd></div>"
    yield "</dl></header>\n<main>"
    yield from _tokens(segments)
    yield _FOOT


def _tokens(segments: Iterable[Segment]) -> Iterator[str]:
    held = list(segments)
    for number, segment in enumerate(held):
        kind = f"c{number % _N_COLOURS}"
        if segment.special:
            kind += " s"
        if segment.text is None:
            kind += " x"
        place = "" if segment.start is None else f"{segment.start}–{segment.end}"
        told = f"{number + 1} of {len(held)}|{segment.id}|{segment.data.hex(' ')}|{place}"
        yield f'<i class="{kind}" data-t="{told}">{_inside(segment)}</i>'


def _inside(segment: Segment) -> str:
    text = segment.text
    if text is None:
        return segment.data.hex(" ")
    if text.isprintable():
        return escape(text)
    out = []
    for char in text:
        if char.isprintable() or char == "\u3000":
            out.append(escape(char))
        elif char == "\n":
            out.append("<b>↵</b>\n")
        elif char == "\t":
            out.append("<b>→</b>\t")
        else:
            shown = visible(Segment(0, char.encode("utf-8", "surrogatepass"), 0, 1, False))
            out.append(f"<b>{escape(shown)}</b>")
    return "".join(out)
