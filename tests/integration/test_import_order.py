"""Modules can be imported in any order, pull in nothing foreign, and keep the names they have."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "rustllm").rglob("*.py")
    if path.name != "__main__.py"
)

# What the foundation promises; a name is added here when it is added there, and never taken away
# without a word in the changelog.
NAMES = {
    "rustllm.bench": (
        "Comparison KernelSpeed Measurement Peaks Ratio Roofline compare draw_roofline "
        "machine_facts measure measure_peaks"
    ),
    "rustllm.iterators": "ArrayGroups TokenIterator batched chunks windows",
    "rustllm.parallel": "ParallelMap Progress parallel_map",
    "rustllm.serialize": "atomic_write dump dumps load loads register_type",
    "rustllm.stream": "Branch ReadAhead aio interleave merge pipe prefetch rate tee zip_longest",
    "rustllm.stream.aio": "from_sync interleave map merge pipe prefetch rate tee zip_longest",
    "rustllm.testing": (
        "BigramBuilder BigramConfig BigramModel BigramState BuilderConformance ByteTokenizer "
        "ConfigConformance Conformance LanguageModelConformance ModelConformance "
        "PluginConformance TokenConformance TokenizerConformance check_parser "
        "each_allocation_failing mutations"
    ),
    "rustllm.traits": (
        "Batch Constraint Generation LogitsProcessor Matcher PrefixCache Sampling Scores "
        "Closed ConfigLike LanguageModel LanguageModelConfig Loaded Model ModelBuilder ModelConfig "
        "ModelLike ModelState NeedsConfig NeedsWeights Piece Plugin PluginLike Ready StateLike "
        "StreamDecoder SupportsDecode SupportsEncode SupportsGenerate Token TokenLike Tokenizer "
        "TokenizerLike Unloaded VocabularyToken"
    ),
    "rustllm.types": (
        "BytesLike EmbeddingArray Encoded FixedMatrix FixedWindow IntLike Logits Logprobs "
        "OffsetArray PathLikeStr TokenArray TokenBatch TokenId TokenIds Tokens Unchecked Weights "
        "as_token_array"
    ),
}


def run(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_each_module_can_be_the_first_to_be_imported():
    code = (
        "import importlib, os, sys, traceback, numpy\n"
        "for name in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            importlib.import_module(name)\n"
        "        except BaseException as error:\n"
        "            # An adapter says so where what it adapts is not installed.\n"
        "            missing = type(error).__name__ == 'MissingDependencyError'\n"
        "            if missing and '.integrations.' in name: os._exit(0)\n"
        "            traceback.print_exc()\n"
        "            os._exit(1)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(child, 0)[1]: print(name)\n"
    )
    assert run(code, *MODULES) == []


def test_importing_the_package_loads_none_of_its_parts_and_nothing_foreign():
    code = (
        "import sys\n"
        "import rustllm\n"
        "print(*[m for m in sys.modules if m.startswith('rustllm.') or m == 'numpy'])"
    )
    assert run(code) == ["rustllm._lazy"]


def test_training_from_files_and_saving_need_no_numpy(tmp_path):
    (tmp_path / "text.txt").write_text("low lower lowest\n" * 9)
    code = (
        "import os, sys\n"
        "import rustllm\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "trained = rustllm.BpeTrainer(260).train_files(['text.txt'])\n"
        "trained.save('trained.json')\n"
        "print(len(trained.merges_as_text()), 'numpy' in sys.modules)"
    )
    assert run(code) == ["4", "False"]


@pytest.mark.parametrize("name", ["Tokenizer", "windows", "parallel_map", "stream", "types"])
def test_a_name_of_the_foundation_brings_nothing_but_numpy_and_the_standard_library(name):
    code = (
        "import sys, numpy, multiprocessing\n"
        "before = set(sys.modules)\n"
        "import rustllm\n"
        f"rustllm.{name}\n"
        "tops = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(*sorted(tops - sys.stdlib_module_names - {'rustllm', 'numpy'}))"
    )
    # Cython puts modules of its own names there, which are no imports.
    assert [m for m in run(code) if "cython" not in m.lower()] == []


def test_the_names_of_the_foundation_stay():
    import importlib

    for module, names in NAMES.items():
        assert sorted(importlib.import_module(module).__all__) == sorted(names.split()), module


@pytest.mark.parametrize("module", sorted(NAMES))
def test_every_name_is_there_and_documented(module):
    import importlib

    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if isinstance(value, type) and value.__module__.startswith("rustllm"):
            assert value.__doc__, name
