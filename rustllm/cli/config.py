"""Show the settings in force, and where each of them comes from.

examples:
  rustllm config show
  rustllm config show --json
  RUSTLLM_SAFE_MODE=1 rustllm config show --config settings.toml
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from rustllm.cli.options import add_action_argument
from rustllm.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_action_argument(parser, {"show": "every setting and its source"})
    parser.add_argument("--config", type=Path, help="settings file instead of the user's own")


def run(args: Namespace) -> int:
    """Load the settings and print them."""
    from rustllm.config import Settings, default_file

    output = Output.of(args)
    file = args.config or default_file()
    settings = Settings.load(file=file)
    if output.json:
        output.document(
            "config.show",
            file=str(file) if file is not None else None,
            settings={
                key: {
                    "value": settings[key],
                    "source": str(settings.source(key)),
                    "overridden": [str(source) for source in settings.provenance(key)[1:]],
                    "about": settings.describe(key),
                }
                for key in settings
            },
        )
        return 0
    output.line(f"# settings file: {file or 'none'}")
    rows = [(f"{key} = {_shown(settings[key])}", str(settings.source(key))) for key in settings]
    width = max(len(text) for text, _ in rows)
    for key, (text, source) in zip(settings, rows):
        output.line(f"{text.ljust(width)}  # {source}")
        for other in settings.provenance(key)[1:]:
            if other.layer != "default":
                output.line(f"#   overrides {_shown(other.value)} of {other}")
    return 0


def _shown(value: object) -> str:
    import json

    if isinstance(value, tuple):
        return f"[{', '.join(_shown(part) for part in value)}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str | os.PathLike):
        return json.dumps(os.fspath(value), ensure_ascii=False)
    return json.dumps(value, default=str, ensure_ascii=False)
