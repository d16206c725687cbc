"""Versions and ranges agree with the `packaging` library."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import VersionError
from rustllm.version import Version, VersionRange

packaging_version = pytest.importorskip("packaging.version")
packaging_specifiers = pytest.importorskip("packaging.specifiers")

number = st.one_of(st.integers(0, 3), st.just(10)).map(str)
release = st.lists(number, min_size=1, max_size=3).map(".".join)
epoch = st.sampled_from(["", "", "", "0!", "1!"])
separator = st.sampled_from(["", ".", "-", "_"])
pre_word = st.sampled_from(["a", "b", "rc", "c", "alpha", "BETA", "pre", "preview"])
pre = st.one_of(st.just(""), st.builds("{}{}{}{}".format, separator, pre_word, separator, number))
post = st.one_of(
    st.just(""),
    st.builds("{}{}{}".format, separator, st.sampled_from(["post", "rev", "r"]), number),
    st.builds("-{}".format, number),
)
dev = st.one_of(st.just(""), st.builds("{}dev{}".format, separator, number))
label = st.lists(st.sampled_from(["1", "2", "10", "abc", "x"]), min_size=1, max_size=2)
local = st.one_of(st.just(""), st.just(""), label.map(lambda parts: "+" + ".".join(parts)))
public = st.builds("{}{}{}{}{}".format, epoch, release, pre, post, dev)
versions = st.builds("{}{}".format, public, local)

near_versions = st.text(alphabet="01.!-_+abrcdevpostv* ", max_size=12)
clauses = st.one_of(
    st.builds("{}{}".format, st.sampled_from([">=", "<=", "<", ">", "~=", "==", "!="]), public),
    st.builds("{}{}".format, st.sampled_from(["==", "!=", "==="]), versions),
    st.builds("{}{}{}.*".format, st.sampled_from(["==", "!="]), epoch, release),
)
ranges = st.lists(clauses, max_size=3).map(",".join)


def reference_range(text):
    try:
        return packaging_specifiers.SpecifierSet(text)
    except packaging_specifiers.InvalidSpecifier:
        return None


@given(st.one_of(versions, near_versions))
def test_text_is_a_version_exactly_when_packaging_says_so(text):
    try:
        expected = packaging_version.Version(text)
    except packaging_version.InvalidVersion:
        with pytest.raises(VersionError):
            Version(text)
        return
    version = Version(text)
    assert str(version) == str(expected)
    assert version.is_prerelease == expected.is_prerelease
    assert (version.epoch, version.release) == (expected.epoch, expected.release)
    assert (version.pre, version.post, version.dev) == (expected.pre, expected.post, expected.dev)
    assert version.public == expected.public
    assert pickle.loads(pickle.dumps(version)) == version


@given(versions, versions)
def test_order_and_hash_are_those_of_packaging(first, second):
    mine, theirs = (
        (Version(first), Version(second)),
        (
            packaging_version.Version(first),
            packaging_version.Version(second),
        ),
    )
    assert (mine[0] < mine[1]) == (theirs[0] < theirs[1])
    assert (mine[0] >= mine[1]) == (theirs[0] >= theirs[1])
    assert (mine[0] == mine[1]) == (theirs[0] == theirs[1])
    if mine[0] == mine[1]:
        assert hash(mine[0]) == hash(mine[1])


@given(ranges, versions, st.booleans())
def test_membership_is_that_of_packaging(text, version, prereleases):
    reference = reference_range(text)
    if reference is None:
        with pytest.raises(VersionError):
            VersionRange(text)
        return
    expected = reference.contains(packaging_version.Version(version), prereleases=prereleases)
    mine = VersionRange(text)
    assert mine.contains(Version(version), prereleases=prereleases) == expected
    assert VersionRange(str(mine)) == mine


@given(st.lists(clauses, min_size=2, max_size=4), versions)
def test_an_intersection_admits_what_every_part_admits(parts, version):
    if any(reference_range(part) is None for part in parts):
        return
    whole = VersionRange("")
    for part in parts:
        whole = whole & VersionRange(part)
    assert (version in whole) == all(version in VersionRange(part) for part in parts)


@given(st.text(alphabet="0123456789.,<>=!~* abcdevpost+", max_size=24))
def test_noise_is_refused_or_accepted_as_packaging_does(text):
    if "===" in text:  # anything may follow it there, here only a version can ever be asked for
        return
    if reference_range(text) is None:
        with pytest.raises(VersionError):
            VersionRange(text)
    else:
        VersionRange(text)


def test_long_numbers_are_refused_and_not_computed():
    for text in ("9" * 5000, "1." * 5000 + "1", "1.0+" + "a." * 5000 + "a"):
        with pytest.raises(VersionError):
            Version(text)
        with pytest.raises(VersionError):
            VersionRange(">=" + text)


def test_neither_can_be_changed():
    with pytest.raises(AttributeError):
        Version("1.0").epoch = 2
    with pytest.raises(AttributeError):
        VersionRange(">=1").anything = 2


def test_a_range_may_be_sixteen_times_as_long_as_a_version_and_no_longer():
    longest = ",".join([">=1"] * 1024) + " "
    assert len(longest) == 16 * 256
    assert "1.0" in VersionRange(longest)
    with pytest.raises(VersionError, match="4097 characters"):
        VersionRange(longest + " ")


@pytest.mark.parametrize(("length", "shown"), [(60, "x" * 60), (61, "x" * 57 + "...")])
def test_a_long_text_that_is_no_version_is_shown_in_part(length, shown):
    with pytest.raises(VersionError) as told:
        Version(" " + "x" * length)
    assert told.value.version == shown
