"""Manifests are read without importing anything, and every error says where it is."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import ManifestError
from rustllm.plugins.manifest import FILE_NAME, parse_manifest, read_manifest

GOOD = """\
api = "1"
id = "acme.sentences"
version = "1.4.0"
description = "Cuts text"
plugin = "acme_sentences.core:Plugin"
requires = { rustllm = ">=0.1,<1", "acme.unicode" = "~=0.3" }
optional = { "acme.gpu" = ">=2" }
conflicts = { "old.sentences" = "" }
before = ["core.cache"]
after = ["core.normalize"]

[[provides]]
kind = "tokenizer"
name = "sentences"
entry = "acme_sentences:load"
suffixes = [".txt"]

[[provides]]
kind = "loader"
name = "sentences"
entry = "acme_sentences:open"
priority = 5
"""


def write(tmp_path, text):
    path = tmp_path / FILE_NAME
    path.write_text(text)
    return path


def test_every_key_is_read_and_nothing_is_imported(tmp_path):
    before = set(sys.modules)
    manifest = read_manifest(write(tmp_path, GOOD))
    assert not {name for name in set(sys.modules) - before if "acme" in name}
    assert manifest.id == "acme.sentences"
    assert str(manifest.version) == "1.4.0"
    assert manifest.plugin == "acme_sentences.core:Plugin"
    assert "0.3.7" in manifest.requires["acme.unicode"]
    assert "0.0.1" in manifest.conflicts["old.sentences"]
    assert (manifest.before, manifest.after) == (("core.cache",), ("core.normalize",))
    first, second = manifest.provides
    assert (first.kind, first.name, first.priority) == ("tokenizer", "sentences", 0)
    assert first.metadata["suffixes"] == [".txt"]
    assert second.priority == 5


def test_a_manifest_cannot_be_changed(tmp_path):
    manifest = read_manifest(write(tmp_path, GOOD))
    with pytest.raises(AttributeError):
        manifest.id = "other"
    with pytest.raises(TypeError):
        manifest.requires["x"] = None


def test_the_version_of_the_distribution_serves_when_the_file_has_none(tmp_path):
    path = write(tmp_path, 'api = "1"\nid = "a"\n')
    with pytest.raises(ManifestError, match="missing"):
        read_manifest(path)
    assert str(read_manifest(path, version="2.5").version) == "2.5"


@pytest.mark.parametrize(
    ("old", "new", "key", "line"),
    [
        ('api = "1"', "", "api", None),
        ('api = "1"', "api = 1", "api", 1),
        ('id = "acme.sentences"', 'id = "a b"', "id", 2),
        ('id = "acme.sentences"', 'id = "python"', "id", 2),
        ('version = "1.4.0"', 'version = "new"', "version", 3),
        ("description =", "descripton =", "descripton", 4),
        ("acme_sentences.core:Plugin", "acme_sentences.core", "plugin", 5),
        ("acme_sentences.core:Plugin", "../evil:Plugin", "plugin", 5),
        ("~=0.3", "~=3", "requires.acme.unicode", 6),
        ("requires = {", 'requires = { "acme.sentences" = "",', "requires.acme.sentences", 6),
        ('optional = { "acme.gpu" = ">=2" }', "optional = []", "optional", 7),
        ('before = ["core.cache"]', 'before = "core.cache"', "before", 9),
        ('after = ["core.normalize"]', "after = [1]", "after", 10),
        ('kind = "tokenizer"', "kind = ''", "provides[0].kind", 13),
        ('entry = "acme_sentences:load"', "entry = 'x'", "provides[0].entry", 15),
        ("priority = 5", "priority = true", "provides[1].priority", 22),
        ('kind = "loader"', 'kind = "tokenizer"', "provides[1]", 18),
    ],
)
def test_a_broken_rule_names_key_and_line(tmp_path, old, new, key, line):
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(tmp_path, GOOD.replace(old, new, 1)))
    assert caught.value.key == key
    assert caught.value.line == line
    assert caught.value.path == str(tmp_path / FILE_NAME)


def test_a_later_api_is_read_just_far_enough_to_be_refused(tmp_path):
    text = 'api = "2"\nid = "a"\nversion = "1"\nnovelty = 3\nrequires = 7\n'
    manifest = read_manifest(write(tmp_path, text))
    assert (manifest.api, manifest.requires) == ("2", {})


@pytest.mark.parametrize(
    "content", [b"\xff", b"a = ", b"[" * 50_000, b"#" * (1 << 18) + b"\n", b"a=" + b"[" * 20_000]
)
def test_what_is_not_a_manifest_is_a_typed_error(tmp_path, content):
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(ManifestError):
        read_manifest(path)
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "nothing.toml")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["id", "version", "plugin", "requires", "optional", "conflicts", "before", "after", "provides"]
)


@given(st.dictionaries(KEYS, VALUES))
def test_any_values_give_a_manifest_or_a_typed_error(values):
    raw = {"api": "1", "id": "a", "version": "1", **values}
    try:
        parse_manifest(raw)
    except ManifestError as error:
        assert error.key
