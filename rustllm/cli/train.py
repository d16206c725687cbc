"""Learn a vocabulary from files of UTF-8 text.

Byte-level BPE by default, with the merges that Hugging Face's tokenizers finds; WordPiece and
Unigram with --kind. Counting can be interrupted and goes on where --checkpoint got to; counts of
several machines are added up with --counts. The result does not depend on the number of threads.

examples:
  rustllm train --vocab-size 32000 -o tokenizer.json corpus/*.txt
  rustllm train --vocab-size 50000 --pattern o200k --special "[END]" -o v.json a.txt b.txt
  rustllm train --count-only --checkpoint part1.counts part1/*.txt
  rustllm train --vocab-size 32000 --counts part1.counts --counts part2.counts -o v.gguf
  rustllm train --kind wordpiece --vocab-size 30000 -o bert.json corpus.txt
  rustllm train --kind unigram --vocab-size 8000 --special "[BOS]" -o pieces.json corpus.txt
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

KINDS = ("bpe", "wordpiece", "unigram")
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
    parser.add_argument(
        "--min-frequency", type=whole(0), default=0, metavar="N", help="bpe and wordpiece only"
    )
    parser.add_argument(
        "--max-token-length",
        type=whole(1),
        metavar="N",
        help="bytes that no token reaches, bpe only",
    )
    parser.add_argument("--threads", type=whole(1), metavar="N", help="default: all cores")
    pieces = parser.add_argument_group("unigram only")
    pieces.add_argument(
        "--max-piece-length", type=whole(1), default=16, metavar="N", help="(default: %(default)s)"
    )
    pieces.add_argument(
        "--unk-token", default="<unk>", metavar="TOKEN", help="(default: %(default)s)"
    )
    counts = parser.add_argument_group("counts")
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
    if args.kind == "unigram" and args.min_frequency:
        raise ArgumentError("--min-frequency is for bpe and wordpiece, whose pairs it counts")
    format = args.format
    if format is None and not args.count_only:
        from rustllm.tokenizers.conversion import format_of_path

        format = format_of_path(str(args.output))  # complain now, not after hours
    with output.progress() as bar:
        found = _train(args, bar)
    if args.count_only:
        if output.json:
            output.document("train", counts=args.checkpoint, distinct=len(found))
        else:
            output.line(f"{args.checkpoint}: {len(found):,} distinct stretches of text")
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
        units = {"count": "MB", "words": "stretches", "pieces": "pieces"}
        bar(stage, done, total, unit=units.get(stage, "tokens"))

    return report


def _trainer(args: Namespace, progress: Any) -> Any:
    size = args.vocab_size or 1 << 20  # counting alone asks for none
    if args.kind == "bpe":
        from rustllm.tokenizers.trainer import BpeTrainer

        return BpeTrainer(
            size,
            args.pattern,
            args.special,
            args.min_frequency,
            args.threads,
            max_token_length=args.max_token_length,
            progress=progress,
        )
    if args.kind == "wordpiece":
        from rustllm.tokenizers.wordpiece_trainer import WordPieceTrainer

        special = args.special or _BERT_SPECIAL
        return WordPieceTrainer(
            size, special, args.min_frequency, num_threads=args.threads, progress=progress
        )
    from rustllm.tokenizers.unigram_trainer import UnigramTrainer

    return UnigramTrainer(
        size,
        args.special,
        unk_token=args.unk_token,
        max_piece_length=args.max_piece_length,
        num_threads=args.threads,
        progress=progress,
    )


def _train(args: Namespace, bar: Any) -> Any:
    """The counts if nothing but them is asked for, and the tokenizer otherwise."""
    from rustllm.tokenizers.pretoken_counting import TextCounts

    trainer = _trainer(args, _progress(bar))
    counts = trainer.count_files(args.files, args.checkpoint)
    for path in args.counts:
        counts.merge(TextCounts.load(path))
    if args.count_only:
        if args.counts:
            counts.save(args.checkpoint)
        return counts
    return trainer.train_counts(counts)
