"""Layered typed configuration."""

import json
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm._source_lines import json_key_lines, nearest_line, toml_key_lines
from rustllm.config import Config, Settings, default_file, setting
from rustllm.errors import ArgumentError, ConfigError, FileAccessError, FileMissingError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Config):
    depth: int = setting(1, "how deep", minimum=0, maximum=9)
    table: dict[str, float] = setting({})


class Example(Config):
    port: int = setting(8080, "where to listen", minimum=1, maximum=65535)
    rate: float = 0.5
    loud: bool = False
    name: str = "x"
    where: Path = Path("/var/data")
    tags: tuple[str, ...] = ()
    colour: Colour = Colour.RED
    mode: Literal["fast", "exact"] = "fast"
    limit: int | None = None
    anything: dict[str, Any] = setting({})
    inner: Inner


def load(**kwargs):
    kwargs.setdefault("environ", {})
    return Example.load(prefix="EX", **kwargs)


def test_defaults_hold_when_nothing_else_is_said():
    config = load()
    assert (config.port, config.rate, config.inner.depth) == (8080, 0.5, 1)
    assert str(config.source("port")) == "default"
    assert list(config)[-2:] == ["inner.depth", "inner.table"]


def test_each_layer_overrides_the_one_below_and_provenance_keeps_them_all(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('name = "file"\n\n[inner]\n# deep\ndepth = 3\n')
    config = load(file=path, environ={"EX_INNER_DEPTH": "4", "EX_PORT": "90"}, arguments={})
    assert (config.name, config.inner.depth, config.port) == ("file", 4, 90)
    chain = config.provenance("inner.depth")
    assert [source.layer for source in chain] == ["environment", "file", "default"]
    assert [str(source) for source in chain] == ["EX_INNER_DEPTH", f"{path}:5", "default"]
    over = load(file=path, environ={"EX_INNER_DEPTH": "4"}, arguments={"inner.depth": 5})
    assert over.inner.depth == over["inner.depth"] == 5
    assert str(over.source("inner.depth")) == "argument inner.depth"
    assert over.inner.provenance("depth")[0].value == 5


def test_an_argument_of_none_means_not_given():
    assert load(arguments={"port": None}).port == 8080


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("EX_LOUD", "yes", "loud", True),
        ("EX_LOUD", "OFF", "loud", False),
        ("EX_RATE", "2", "rate", 2.0),
        ("EX_TAGS", "a, b,,c", "tags", ("a", "b", "c")),
        ("EX_COLOUR", "blue", "colour", Colour.BLUE),
        ("EX_MODE", "exact", "mode", "exact"),
        ("EX_LIMIT", "7", "limit", 7),
        ("EX_LIMIT", "none", "limit", None),
        ("EX_INNER_TABLE", "a=1,b=2.5", "inner.table", {"a": 1.0, "b": 2.5}),
    ],
)
def test_the_environment_is_text_and_is_converted(variable, text, key, value):
    assert load(environ={variable: text})[key] == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("EX_PORT", "0"),
        ("EX_PORT", "65536"),
        ("EX_PORT", "many"),
        ("EX_PORT", "9" * 5000),
        ("EX_RATE", "fast"),
        ("EX_LOUD", "maybe"),
        ("EX_COLOUR", "green"),
        ("EX_MODE", "slow"),
        ("EX_INNER_TABLE", "a"),
        ("EX_INNER_TABLE", "a=b"),
    ],
)
def test_a_bad_variable_is_named(variable, text):
    with pytest.raises(ConfigError) as caught:
        load(environ={variable: text})
    assert caught.value.source == variable
    assert variable in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ('port = "80"', "port", 1),
        ("\n\nport = true", "port", 3),
        ("rate = []", "rate", 1),
        ("loud = 1", "loud", 1),
        ("name = 1", "name", 1),
        ("tags = 'a'", "tags", 1),
        ("tags = [\n'a',\n1]", "tags", 1),
        ('name = """\n[inner]\n"""\n[inner]\ndepth = 99', "inner.depth", 5),
        ("[inner.table]\nx = 1\ny = 'a'", "inner.table", 1),
        ("where = 3", "where", 1),
        ("\n[inner]\ndepht = 1", "inner.depht", 3),
    ],
)
def test_a_bad_value_in_a_file_names_the_line(tmp_path, text, key, line):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file=path)
    assert (caught.value.key, caught.value.line) == (key, line)
    assert f"{path}:{line}" in str(caught.value)


def test_json_files_name_lines_too(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"port": 81, "inner": {"depth": "x"}}, indent=1))
    with pytest.raises(ConfigError) as caught:
        load(file=path)
    assert (caught.value.key, caught.value.line) == ("inner.depth", 4)


def test_a_misspelt_key_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean port"):
        load(arguments={"prot": 1})
    with pytest.raises(ConfigError, match="did you mean inner.depth"):
        load().source("inner.deph")


def test_relative_paths_in_a_file_are_relative_to_it(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('where = "data"')
    assert load(file=path).where == tmp_path / "data"
    assert load(arguments={"where": "data"}).where == Path("data")


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"a = " + b"[" * 100_000])
def test_files_that_are_not_toml_are_typed_errors(tmp_path, content):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(file=path)


def test_missing_and_huge_files_are_typed_errors(tmp_path):
    with pytest.raises(FileMissingError):
        load(file=tmp_path / "none.toml")
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError):
        load(file=big)
    with pytest.raises(FileAccessError, match="directory"):
        load(file=tmp_path)
    listed = tmp_path / "list.json"
    listed.write_text("[1]")
    with pytest.raises(ConfigError):
        load(file=listed)


def test_settings_explain_and_show_themselves():
    config = load(arguments={"colour": Colour.BLUE})
    assert config.describe("inner.depth") == "how deep"
    with pytest.raises(ConfigError, match="prot"):
        config.describe("prot")
    shown = repr(config)
    assert shown.startswith("Example(port=8080, ") and "colour=<Colour.BLUE: 'blue'>" in shown
    assert "inner.depth=1" in shown


class Bounded(Config):
    _kept_for_itself: int = 0
    least: int = setting(1, minimum=1)
    most: float = setting(0.5, maximum=1)
    where: Path = Path("/var/data")
    table: dict[str, int] = setting({})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("least", 0, "0 is not 1 or more"),
        ("most", 1.5, "1.5 is not 1 or less"),
        ("where", "~no-such-user-here/x", "a path with a known home folder"),
        ("table", ["a"], "not a table"),
        ("table", {1: 2}, "not a table"),
    ],
)
def test_a_bad_argument_says_what_was_wanted(key, value, said):
    with pytest.raises(ConfigError, match=said):
        Bounded.load(environ={}, arguments={key: value})
    assert list(Bounded.load(environ={})) == ["least", "most", "where", "table"]


@pytest.mark.parametrize("kind", [set, int | str])
def test_a_type_that_settings_cannot_have_is_refused(kind):
    class Odd(Config):
        __annotations__ = {"odd": kind}  # noqa: RUF012
        odd = None

    with pytest.raises(ArgumentError, match="setting odd"):
        Odd.load(environ={}, arguments={"odd": 1})


def test_loaded_settings_cannot_be_changed():
    config = load()
    with pytest.raises(AttributeError):
        config.port = 1
    with pytest.raises(AttributeError):
        del config.port


def test_a_setting_without_a_default_must_be_given():
    class Strict(Config):
        token: str

    with pytest.raises(ConfigError) as caught:
        Strict.load(environ={})
    assert caught.value.key == "token"
    assert Strict.load(environ={"RUSTLLM_TOKEN": "t"}).token == "t"


def test_the_librarys_own_settings_load_from_the_named_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'safe_mode = true\n[plugins]\ndisabled = ["a.b"]\n[plugins.settings."a.b"]\nx=1'
    )
    environ = {"RUSTLLM_CONFIG": str(path)}
    settings = Settings.load(file=default_file(environ), environ=environ)
    assert settings.safe_mode
    assert settings.plugins.disabled == ("a.b",)
    assert settings.plugins.settings == {"a.b": {"x": 1}}
    assert default_file({"HOME": str(tmp_path)}) is None


KEYS = st.text(alphabet="abcdefg_-", min_size=1, max_size=5)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.text(max_size=8), max_size=3), max_size=4))
def test_lines_point_at_the_key_that_they_name(tables):
    text, expected, number = "", {}, 0
    for name, table in tables.items():
        number += 1
        text += f"[{name}] # [not.this]\n"
        expected[name] = number
        for key, value in table.items():
            number += 1
            quoted = json.dumps(value, ensure_ascii=True)
            text += f"{key} = [{quoted}, # comment ]\n 'x']\n"
            expected[f"{name}.{key}"] = number
            number += 1
    assert toml_key_lines(text) == expected
    as_json = json.dumps(tables, indent=1)
    lines = json_key_lines(as_json)
    rows = as_json.split("\n")
    for name, table in tables.items():
        assert rows[lines[name] - 1].lstrip().startswith(json.dumps(name))
        for key in table:
            assert rows[lines[f"{name}.{key}"] - 1].lstrip().startswith(json.dumps(key))


@given(st.text(max_size=60))
def test_line_scanners_take_any_text(text):
    toml_key_lines(text)
    json_key_lines(text)
    assert nearest_line({"a": 1}, text) in (None, 1)
