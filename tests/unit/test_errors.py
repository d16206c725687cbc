import pickle

from rustllm import errors


def test_error_keeps_its_fields_through_pickling():
    error = errors.FileFormatError("bad magic", path="x.gguf", offset=0, hint="not a GGUF file")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "x.gguf, offset 0: bad magic (not a GGUF file)"
    assert (again.path, again.offset, again.hint) == ("x.gguf", 0, "not a GGUF file")
