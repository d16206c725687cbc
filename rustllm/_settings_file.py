"""Where the user's settings file is; apart from reading it, so that asking costs no import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["default_file"]


def default_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the user's settings file, if there is one.

    ``RUSTLLM_CONFIG`` names it; otherwise it is ``rustllm/config.toml`` in the user's configuration
    folder. The working directory is never searched: a settings file may name plugins to run.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("RUSTLLM_CONFIG")
    if named:
        return Path(named)
    folder = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")) / ".config")
    try:
        path = Path(folder).expanduser() / "rustllm" / "config.toml"
        return path if path.is_file() else None
    except (OSError, RuntimeError):
        return None
