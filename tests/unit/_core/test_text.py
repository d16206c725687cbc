"""Strings of every width as UTF-8."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core.text import utf8

CHARS = st.one_of(
    st.characters(), st.sampled_from("aé中🏃\ud800\udc00\udfff\x00\x7f\x80\u07ff\uffff")
)


@given(st.lists(CHARS, max_size=80).map("".join) | st.text("abc \xe9", max_size=80))
@settings(max_examples=400, deadline=None)
def test_surrogates_are_joined_or_replaced_and_the_rest_is_utf8(text):
    want = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    assert utf8(text) == want
