"""Fixtures for every test: real models, fetched once by the project's own store."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy, or sanitized code, is slow, which says nothing about the tests.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell starts background jobs with SIGINT ignored, and every process below inherits that. The
# tests of interrupts, in this process and in children, need Python's usual handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _model_path(name: str) -> Path:
    from rustllm.errors import DownloadError
    from rustllm.models.store import find_model

    try:
        return find_model(name)
    except DownloadError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} is not in the cache and cannot be fetched: {error.message}")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1: a llama with a byte-level BPE tokenizer."""
    return _model_path("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M (base), Q4_K_M: a gemma3 with a SentencePiece-style tokenizer."""
    return _model_path("gemma-3-270m")
