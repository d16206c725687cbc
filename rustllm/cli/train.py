"""Learn a vocabulary from files of UTF-8 text.

Byte-level BPE by default, with the merges that Hugging Face's tokenizers finds. Counting can be
interrupted and goes on where --checkpoint got to; counts of several machines are added up with
--counts. The result does not depend on the number of threads.

examples:
  rustllm train --vocab-size 32000 -o tokenizer.json corpus/*.txt
  rustllm train --vocab-size 50000 --pattern o200k --special "[END]" -o v.json a.txt b.txt
  rustllm train --count-only --checkpoint part1.counts part1/*.txt
  rustllm train --vocab-size 32000 --counts part1.counts --counts part2.counts -o v.gguf
  rustllm train --kind wordpiece --vocab-size 30000 -o bert.json corpus.txt
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rustllm.cli.convert import FORMATS
from rustllm.cli.options import whole
from rustllm.cli.output import Output
from rustllm.errors import ArgumentError

__all__ = ["add_arguments", "run"]

KINDS = ("bpe", "wordpiece")
_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="text to learn from (UTF-8)")
    parser.add_argument("-o", "--output", metavar="PATH", help="file (or folder) to write")
    parser.add_argument("--format", choices=FORMATS, help="default: what the output's name says")
    parser.add_argument("--vocab-size", type=whole(1), metavar="N", help="tokens to stop at")
    parser.add_argument("--kind", choices=KINDS, default="bpe", help="(default: %(default)s)")
    parser.add_argument(
        "--pattern",
        default="gpt2",
        metavar="NAME|REGEX",
        help="how text is cut before merging, bpe only (default: %(default)s)",
    )
    parser.add_argument(
        "--special",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a special token; repeatable, they get the first ids",
    )
    parser.add_argument("--min-frequency", type=whole(0), default=0, metavar="N")
    parser.add_argument(
        "--max-token-length", type=whole(1), metavar="N", help="bytes that no token reaches"
    )
    parser.add_argument("--threads", type=whole(1), metavar="N", help="default: all cores")
    counts = parser.add_argument_group("counts (bpe only)")
    counts.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="keep counts here while counting; files counted in it already are passed over",
    )
    counts.add_argument(
        "--counts", action="append", default=[], metavar="PATH", help="add these up; repeatable"
    )
    counts.add_argument(
        "--count-only", action="store_true", help="stop when --checkpoint is complete"
    )


def run(args: Namespace) -> int:
    """Count, merge, write."""
    output = Output.of(args)
    if args.count_only:
        if args.checkpoint is None or args.output is not None:
            raise ArgumentError("--count-only writes --checkpoint and nothing else")
    elif args.output is None or args.vocab_size is None:
        raise ArgumentError("--output and --vocab-size are needed")
    if not args.files and not args.counts:
        raise ArgumentError("nothing to learn from", hint="name files, or --counts")
    if args.kind != "bpe" and (args.checkpoint or args.counts):
        raise ArgumentError(f"counts are kept for bpe only, not for {args.kind}")
    format = args.format
    if format is None and not args.count_only:
        from rustllm.tokenizers.conversion import format_of_path

        format = format_of_path(str(args.output))  # complain now, not after hours
    with output.progress() as bar:
        found = _bpe(args, bar) if args.kind == "bpe" else _wordpiece(args, bar)
    if args.count_only:
        if output.json:
            output.document("train", counts=args.checkpoint, distinct=len(found))
        else:
            output.line(f"{args.checkpoint}: {len(found):,} distinct pretokens")
        return 0
    _save(found, str(args.output), format)
    if output.json:
        output.document("train", path=args.output, trained=args.kind, n_vocab=found.n_vocab)
    else:
        output.line(f"{args.output}: {found.n_vocab:,} tokens")
    return 0


def _save(found: Any, path: str, format: Any) -> None:
    from rustllm.tokenizers.conversion import save_tokenizer
    from rustllm.tokenizers.trained import TrainedBpe

    if format == "tiktoken" and isinstance(found, TrainedBpe):
        found.save(path)  # its ranks, as near to its merges as ranks come
        return
    if format == "vocab-merges":
        Path(path).mkdir(parents=True, exist_ok=True)
    save_tokenizer(found, path, format)


def _progress(bar: Any) -> Any:
    def report(stage: str, done: int, total: int) -> None:
        bar(stage, done, total, unit="MB" if stage == "count" else "tokens")

    return report


def _bpe(args: Namespace, bar: Any) -> Any:
    from rustllm.tokenizers.pretoken_counting import TextCounts
    from rustllm.tokenizers.trainer import BpeTrainer

    trainer = BpeTrainer(
        args.vocab_size or 1,
        args.pattern,
        args.special,
        args.min_frequency,
        args.threads,
        max_token_length=args.max_token_length,
        progress=_progress(bar),
    )
    counts = trainer.count_files(args.files, args.checkpoint)
    for path in args.counts:
        counts.merge(TextCounts.load(path))
    if args.count_only:
        if args.counts:
            counts.save(args.checkpoint)
        return counts
    return trainer.train_counts(counts)


def _wordpiece(args: Namespace, bar: Any) -> Any:
    from rustllm.tokenizers.wordpiece_trainer import WordPieceTrainer

    special = args.special or _BERT_SPECIAL
    trainer = WordPieceTrainer(
        args.vocab_size, special, args.min_frequency, progress=_progress(bar)
    )
    return trainer.train_files(args.files)
