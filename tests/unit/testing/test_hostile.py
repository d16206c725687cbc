import numpy as np
import pytest

from rustllm import serialize, windows
from rustllm.testing import check_parser, each_allocation_failing, mutations


def test_one_seed_gives_one_set_of_mutations_and_most_differ_from_the_sample():
    sample = bytes(range(100))
    made = list(mutations(sample, 200, seed=5))
    assert made == list(mutations(sample, 200, seed=5))
    assert made != list(mutations(sample, 200, seed=6))
    assert sum(m != sample for m in made) > 180
    assert len(list(mutations(b"", 3))) == 3


def test_a_parser_that_breaks_is_found_with_the_data_that_breaks_it():
    def fragile(data):
        if len(data) < 8:
            raise ValueError("short")
        return data[data[7]]

    with pytest.raises(AssertionError, match="IndexError.* on b'"):
        check_parser(fragile, [bytes(8)], n=500, errors=ValueError)


def test_damaged_containers_are_refused():
    samples = [
        serialize.dumps({"ids": np.arange(20, dtype=np.uint32), "name": "x", "n": [1, 2.5, None]}),
        serialize.dumps([]),
    ]
    refused = check_parser(serialize.loads, samples, n=1500)
    assert refused > 2500
    check_parser(lambda data: serialize.loads(data, verify=False), samples, n=500)


def test_every_failing_allocation_of_a_window_iterator_is_a_memory_error():
    pytest.importorskip("_testcapi")
    items = list(range(5000, 5040))

    def call():
        return list(windows(items, 7, stride=3, last="pad"))

    def check():
        assert call()[0] == tuple(items[:7])

    assert each_allocation_failing(call, check) > 5


def test_a_swallowed_failure_is_found():
    pytest.importorskip("_testcapi")

    def swallow():
        try:
            [object() for _ in range(100)]
        except MemoryError:
            raise ValueError("something else") from None

    with pytest.raises(AssertionError, match="ValueError"):
        each_allocation_failing(swallow)
