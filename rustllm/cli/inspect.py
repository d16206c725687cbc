"""Show what a model file holds: metadata, tensors, sizes and, with --plan, the operations that run.

examples:
  rustllm inspect model.gguf
  rustllm inspect smollm2-135m-instruct --tensors
  rustllm inspect model.safetensors --json
  rustllm inspect folder/ --plan
  rustllm inspect model.gguf --plan
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rustllm.cli.output import Output
from rustllm.errors import UnsupportedError

__all__ = ["add_arguments", "run"]

SHOWN_ITEMS = 6  # of an array
SHOWN_CHARACTERS = 72  # of a text


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model", metavar="NAME|PATH", help="a model file or folder, or a named model"
    )
    parser.add_argument("--tensors", action="store_true", help="a line for every tensor")
    parser.add_argument(
        "--full", action="store_true", help="whole texts and arrays of the metadata"
    )
    parser.add_argument("--plan", action="store_true", help="the operations that the engine runs")


def run(args: Namespace) -> int:
    """Open the file and print."""
    from rustllm.models import store

    output = Output.of(args)
    with output.progress() as progress:
        path = store.resolve_model(args.model, progress=progress)
    plan = None
    if args.plan:
        from rustllm.models.load import load_model

        plan = str(load_model(path).plan)
    with open_weights(path) as file:
        kind = type(file).__name__.removesuffix("File")
        told = getattr(file, "info", None) or file.tensors  # an array does not know bfloat16
        tensors = [describe_tensor(name, tensor) for name, tensor in told.items()]
        metadata = describe_model(file, path)
        size = file_bytes(file, path)
        if output.json:
            shown = {
                key: shorten(value, whole=args.full, as_data=True)
                for key, value in metadata.items()
            }
            output.document(
                "inspect",
                path=str(path),
                format=kind,
                file_bytes=size,
                metadata=shown,
                tensors=tensors,
                plan=plan,
            )
            return 0
        n_bytes = sum(tensor["bytes"] for tensor in tensors)
        output.line(f"{path}: {kind}, {size / 1e6:.1f} MB")
        output.line(f"\nmetadata ({len(metadata)})")
        for key, value in metadata.items():
            output.line(f"  {key}: {shorten(value, whole=args.full)}")
        output.line(f"\ntensors ({len(tensors)}, {n_bytes / 1e6:.1f} MB)")
        if args.tensors:
            name_width = max((len(tensor["name"]) for tensor in tensors), default=0)
            for tensor in tensors:
                shape = " x ".join(map(str, tensor["shape"]))
                output.line(
                    f"  {tensor['name']:{name_width}}  {tensor['type']:5} {shape:>16} "
                    f"{tensor['bytes']:>12}"
                )
        else:
            for kind, count, size in by_type(tensors):
                output.line(f"  {kind:5} {count:5} tensors {size / 1e6:9.1f} MB")
        if plan is not None:
            output.line("\nplan")
            output.line(plan)
    return 0


def open_weights(path: Path) -> Any:
    """Open a GGUF or safetensors file, or a model folder; the content tells what a file is."""
    from rustllm.loaders.detect import detect_format

    if path.is_dir():
        from rustllm.loaders.safetensors import SafetensorsFolder

        return SafetensorsFolder(path)
    kind = detect_format(path).kind if path.is_file() and path.stat().st_size else "gguf"
    if kind == "safetensors":
        from rustllm.loaders.safetensors import SafetensorsFile

        return SafetensorsFile(path)
    if kind == "gguf":  # and what cannot be told: its reader says what is wrong
        from rustllm.loaders.gguf import GGUFFile

        return GGUFFile(path)
    raise UnsupportedError(
        f"this is no model file but of the kind {kind}",
        path=str(path),
        hint="inspect reads GGUF and safetensors",
    )


def describe_model(file: Any, path: Path) -> dict[str, Any]:
    """Return the metadata of a file; of a folder, what its ``config.json`` says."""
    if not path.is_dir():
        return dict(file.metadata)
    from rustllm.models.hf_config import read_json

    config = path / "config.json"
    return read_json(config) if config.is_file() else {}


def file_bytes(file: Any, path: Path) -> int:
    """Return the bytes of a file, or of all weight files of a folder."""
    if path.is_dir():
        return sum(part.size for part in file.files.values())
    return path.stat().st_size


def describe_tensor(name: str, tensor: Any) -> dict[str, Any]:
    """Return the facts about one tensor that both formats have."""
    return {
        "name": name,
        "type": getattr(tensor, "type_name", None) or str(tensor.dtype),
        "shape": [int(n) for n in tensor.shape],
        "offset": getattr(tensor, "offset", None),
        "bytes": int(getattr(tensor, "n_bytes", 0) or tensor.nbytes),
    }


def by_type(tensors: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Return type, number and bytes of the tensors of each type, largest first.

    Examples
    --------
    >>> from rustllm.cli.inspect import by_type
    >>> by_type([{"type": "F32", "bytes": 4}, {"type": "Q8_0", "bytes": 34}])
    [('Q8_0', 1, 34), ('F32', 1, 4)]
    """
    counts = Counter(tensor["type"] for tensor in tensors)
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor["type"]] += tensor["bytes"]
    return [(kind, counts[kind], size) for kind, size in sizes.most_common()]


def shorten(value: Any, *, whole: bool, as_data: bool = False) -> Any:
    """Cut a value for reading: a text after its first characters, an array after its first items.

    Examples
    --------
    >>> from rustllm.cli.inspect import shorten
    >>> shorten(list(range(100)), whole=False)
    '[0, 1, 2, 3, 4, 5, ...] (100)'
    """
    if isinstance(value, (str, bytes)):
        if not whole and len(value) > SHOWN_CHARACTERS:
            head = value[:SHOWN_CHARACTERS]
            return head if as_data else f"{head!r}... ({len(value)} characters)"
        return value if as_data else repr(value)
    if isinstance(value, Mapping):
        return dict(value) if as_data else repr(dict(value))
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        items = list(value) if whole else [value[i] for i in range(min(len(value), SHOWN_ITEMS))]
        items = [item.item() if hasattr(item, "item") else item for item in items]
        if as_data:
            return items if whole else {"count": len(value), "first": items}
        more = ", ..." if len(items) < len(value) else ""
        return f"[{', '.join(map(repr, items))}{more}] ({len(value)})"
    return value.item() if hasattr(value, "item") else value
