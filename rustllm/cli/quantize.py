"""Write a model, from a GGUF file or a folder of safetensors, as GGUF in another block type.

examples:
  rustllm quantize model-f16.gguf model-q4_k.gguf q4_k
  rustllm quantize SmolLM2-135M/ smollm2-q8_0.gguf q8_0
  rustllm quantize model-f16.gguf model-q8_0.gguf q8_0 --threads 4
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rustllm.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source",
        help="a GGUF file, best of F32, F16 or BF16; or a folder with config.json, tokenizer.json "
        "and safetensors files",
    )
    parser.add_argument("target", help="the GGUF file to write")
    parser.add_argument("type", help="block type: q4_0, q4_k, q8_0, f16, ...")
    parser.add_argument(
        "--pure", action="store_true", help="quantize the output head as low as the rest"
    )
    parser.add_argument(
        "--no-tokenizer",
        action="store_true",
        help="of a folder: leave out its tokenizer and chat template",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: every processor")


def run(args: Namespace) -> int:
    """Convert and tell the sizes before and after."""
    from rustllm.errors import ArgumentError
    from rustllm.models.quantize import quantize_model

    output = Output.of(args)
    if args.threads is not None and args.threads < 1:
        raise ArgumentError(f"--threads {args.threads}: at least 1")
    with output.progress() as bar:
        report = quantize_model(
            args.source,
            args.target,
            args.type,
            pure=args.pure,
            tokenizer=not args.no_tokenizer,
            num_threads=args.threads,
            progress=bar,
        )
    if output.json:
        output.document("quantize", **report._asdict())
    else:
        types = ", ".join(f"{n} {name}" for name, n in sorted(report.types.items()))
        before, after = report.source_bytes / 1e6, report.written_bytes / 1e6
        output.line(f"{report.path}: {before:.1f} MB -> {after:.1f} MB ({types})")
    return 0
