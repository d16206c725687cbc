import asyncio
import inspect
import pickle
from pathlib import Path

import pytest

from rustllm import errors
from rustllm._core.status import Status, check_status

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.RustLLMError)
]


def test_error_keeps_its_fields_through_pickling():
    error = errors.FileFormatError("bad magic", path="x.gguf", offset=0, hint="not a GGUF file")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "x.gguf, offset 0: bad magic (not a GGUF file)"
    assert (again.path, again.offset, again.hint) == ("x.gguf", 0, "not a GGUF file")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_keeps_fields_whose_names_its_built_in_owns(cls):
    fields = {"path": "x", "errno": 13, "offset": 7, "name": "n", "key": "k"}
    error = cls("message", hint="hint", **fields)
    for again in (error, pickle.loads(pickle.dumps(error))):
        assert type(again) is cls
        assert again.message == "message"
        assert (again.path, again.errno, again.offset, again.key) == ("x", 13, 7, "k")
        assert str(again) == "x, offset 7, key k: message (hint)"


def test_codes_are_unique_and_exit_codes_are_valid_statuses():
    codes = [cls.code for cls in CLASSES]
    assert len(codes) == len(set(codes))
    assert all(1 <= cls.exit_code <= 255 for cls in CLASSES)


def test_unknown_attribute_raises_attribute_error():
    with pytest.raises(AttributeError, match="offset"):
        _ = errors.ArgumentError("x").offset


@pytest.mark.parametrize(
    ("status", "cls", "built_in"),
    [
        (Status.NO_MEMORY, errors.OutOfMemoryError, MemoryError),
        (Status.BAD_ARGUMENT, errors.ArgumentError, ValueError),
        (Status.OUT_OF_RANGE, errors.OutOfRangeError, IndexError),
        (Status.TRUNCATED, errors.TruncatedFileError, ValueError),
        (Status.LIMIT_REACHED, errors.MemoryLimitError, MemoryError),
        (Status.STALE, errors.StaleHandleError, RuntimeError),
        (Status.CLOSED, errors.StateError, RuntimeError),
        (Status.LIVE_VIEWS, errors.LiveViewError, BufferError),
        (Status.RELEASED_TWICE, errors.DoubleReleaseError, RuntimeError),
        (Status.BAD_UTF8, errors.InvalidUtf8Error, ValueError),
    ],
)
def test_status_codes_become_our_errors_and_the_built_in_that_fits(status, cls, built_in):
    with pytest.raises(built_in) as caught:
        check_status(status, "kernel failed")
    assert type(caught.value) is cls


def test_every_failing_status_has_a_class():
    for status in Status:
        if status < 0:
            with pytest.raises(errors.RustLLMError) as caught:
                check_status(status, "kernel failed")
            assert type(caught.value) is not errors.RustLLMError
    assert check_status(5, "fine") == 5


def test_unknown_status_is_still_our_error():
    with pytest.raises(errors.RustLLMError):
        check_status(-99, "kernel failed")


def test_fields_that_cannot_be_pickled_travel_as_text():
    error = errors.StateError("busy", lock=lambda: None)
    again = pickle.loads(pickle.dumps(error))
    assert "lambda" in again.lock


def test_cause_survives_pickling():
    try:
        try:
            raise KeyError("a")
        except KeyError as cause:
            raise errors.ModelError("no a") from cause
    except errors.ModelError as error:
        again = pickle.loads(pickle.dumps(error))
    assert [type(link) for link in errors.error_chain(again)] == [errors.ModelError, KeyError]


def test_cause_that_cannot_be_pickled_survives_as_text():
    class Local(Exception):
        pass

    error = errors.ModelError("outer")
    error.__cause__ = Local("inner")
    again = pickle.loads(pickle.dumps(error))
    assert "Local: inner" in str(again.__cause__)


# conversion -------------------------------------------------------------------


def _raise(error):
    raise error


def _decode(data, encoding="utf-8"):
    return data.decode(encoding)


def _conversions():
    import json
    import lzma
    import struct
    import tomllib
    import zlib

    return [
        (lambda: Path("/no/such/file").open(), errors.FileMissingError, {"path": "/no/such/file"}),
        (lambda: _raise(PermissionError(13, "denied", "x")), errors.FileAccessError, {"errno": 13}),
        (lambda: json.loads("[1,"), errors.FileFormatError, {"offset": 3, "line": 1, "column": 4}),
        (lambda: tomllib.loads("a ="), errors.FileFormatError, {}),
        (lambda: struct.unpack("<I", b"ab"), errors.TruncatedFileError, {}),
        (lambda: struct.pack("<I", -1), errors.FileFormatError, {}),
        (lambda: _decode(b"ab\xff"), errors.InvalidUtf8Error, {"offset": 2}),
        (lambda: _decode(b"ab\xff", "ascii"), errors.FileFormatError, {"encoding": "ascii"}),
        (lambda: "a\ud800".encode(), errors.ArgumentError, {"position": 1}),
        (lambda: zlib.decompress(b"nothing"), errors.FileFormatError, {}),
        (lambda: lzma.decompress(b"nothing"), errors.FileFormatError, {}),
        (lambda: _raise(EOFError()), errors.TruncatedFileError, {}),
        (lambda: _raise(MemoryError()), errors.OutOfMemoryError, {}),
        (lambda: _raise(RecursionError("deep")), errors.FileFormatError, {}),
        (
            lambda: __import__("no_such_package.part"),
            errors.MissingDependencyError,
            {"package": "no_such_package"},
        ),
    ]


@pytest.mark.parametrize("case", range(15))
def test_foreign_exceptions_are_converted_with_their_facts_and_cause(case):
    act, cls, facts = _conversions()[case]
    with pytest.raises(errors.RustLLMError) as caught, errors.convert_errors(source="test"):
        act()
    assert type(caught.value) is cls
    assert caught.value.source == "test"
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, errors.RustLLMError)
    for name, value in facts.items():
        assert getattr(caught.value, name) == value


def test_conversion_leaves_our_errors_programming_errors_and_interrupts_alone():
    for error in (errors.StateError("x"), ZeroDivisionError("x"), KeyboardInterrupt(), KeyError(1)):
        with pytest.raises(type(error)) as caught, errors.convert_errors(path="p"):
            raise error
        assert caught.value is error


def test_conversion_keeps_a_path_that_the_boundary_names():
    with pytest.raises(errors.FileMissingError) as caught, errors.convert_errors(path="asked"):
        Path("/no/such/file").read_bytes()
    assert caught.value.path == "asked"


def test_conversion_decorates_functions_and_coroutine_functions():
    @errors.convert_errors(path="p")
    def read():
        """Doc."""
        raise EOFError

    @errors.convert_errors(path="p")
    async def read_async():
        raise EOFError

    assert read.__doc__ == "Doc."
    with pytest.raises(errors.TruncatedFileError):
        read()
    with pytest.raises(errors.TruncatedFileError):
        asyncio.run(read_async())


def test_nearest_registered_class_converts_and_none_declines():
    class Base(Exception):
        pass

    class Derived(Base):
        pass

    class Other(Base):
        pass

    errors.register_conversion(Base)(lambda error, fields: errors.StateError("base", **fields))
    errors.register_conversion(Derived)(lambda error, fields: errors.ModelError("derived"))
    errors.register_conversion(Other)(lambda error, fields: None)
    assert type(errors.convert_error(Base())) is errors.StateError
    assert type(errors.convert_error(Derived())) is errors.ModelError
    assert errors.convert_error(Other()) is None
    with pytest.raises(errors.ArgumentError):
        errors.register_conversion()


def test_converted_error_keeps_the_frames_of_its_cause():
    with (
        pytest.raises(errors.TruncatedFileError) as caught,
        errors.error_context("outer"),
        errors.convert_errors(),
        errors.error_context("inner"),
    ):
        raise EOFError
    assert [frame.what for frame in caught.value.frames] == ["inner", "outer"]
    report = caught.value.report()
    assert report.count("while inner") == 1
    assert report.count("while outer") == 1
