"""From files of text to token shards for training, resumable and byte for byte repeatable.

`tokenize` turns inputs into one flat file of ids; killed at any moment and started again, it ends
with the bytes of an undisturbed run. `verify` checks a corpus against its manifest, `repair` does
again what is damaged in it, `stats` describes it, and `Corpus` reads it: documents as views of the
mapped file. `Samples` are windows in a shuffled order, for training; `derive` and `merge` make
corpora out of corpora.
"""

from rustllm.corpus.derive import derive, merge
from rustllm.corpus.drawing import draw_stats
from rustllm.corpus.driver import tokenize
from rustllm.corpus.formats import FORMATS
from rustllm.corpus.plan import Plan, make_plan, tokenizer_fingerprint
from rustllm.corpus.reader import Corpus, stats, verify
from rustllm.corpus.repair import repair
from rustllm.corpus.samples import Samples
from rustllm.corpus.table import export_table

__all__ = [
    "FORMATS",
    "Corpus",
    "Plan",
    "Samples",
    "derive",
    "draw_stats",
    "export_table",
    "make_plan",
    "merge",
    "repair",
    "stats",
    "tokenize",
    "tokenizer_fingerprint",
    "verify",
]
