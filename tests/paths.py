"""Where tests find reference data that is not part of the project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _find_shared() -> Path | None:
    named = os.environ.get("RUSTLLM_SHARED")
    places = [Path(named)] if named else [ROOT / "../shared", ROOT / "../../shared"]
    for place in places:
        if (place / "vectors").is_dir():
            return place.resolve()
    return None


SHARED = _find_shared()
needs_shared = pytest.mark.skipif(SHARED is None, reason="reference data not here")
