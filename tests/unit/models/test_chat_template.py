"""Chat templates: the built-in forms against jinja2, and what the sandbox keeps a template from."""

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.errors import ArgumentError, MissingDependencyError, UnsupportedError
from rustllm.models.chat_template import ChatTemplate, Piece, encode_pieces, render

# As the model's file has it.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = re.sub(r"\{% if loop.first.*?endif %\}", "", SMOLLM2, flags=re.DOTALL)
GEMMA = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""

roles = st.sampled_from(["user", "assistant", "system", "tool", "größe"])
texts = st.text(alphabet=st.sampled_from("ab \n\t\u3000é😀{%}<|im_end|>"), max_size=30)
conversations = st.lists(
    st.fixed_dictionaries({"role": roles, "content": texts}), min_size=1, max_size=6
)


def by_jinja(source: str, messages: list, add_generation_prompt: bool, **variables: str) -> str:
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)

    def refuse(text):
        raise ValueError(text)

    environment.globals["raise_exception"] = refuse
    return environment.from_string(source).render(
        messages=messages, add_generation_prompt=add_generation_prompt, **variables
    )


@given(conversations, st.booleans(), st.sampled_from([SMOLLM2, CHATML]))
def test_chatml_is_what_jinja2_renders(messages, generate, source):
    for written in (source, source.replace("\n", "\\n")):  # a line end as such, or its escape
        template = ChatTemplate(written)
        assert template.form == "chatml" and template.end_of_turn == "<|im_end|>"
        ours = template.render(messages, add_generation_prompt=generate)
        assert ours == by_jinja(written, messages, generate)


@given(conversations, st.booleans())
def test_gemma_is_what_jinja2_renders(messages, generate):
    unescaped = re.sub(r"(?<!\\)\\n", "\n", GEMMA)
    for written in (GEMMA, unescaped):
        template = ChatTemplate(written, bos_token="<bos>")
        assert template.form == "gemma" and template.end_of_turn == "<end_of_turn>"
        try:
            expected = by_jinja(written, messages, generate, bos_token="<bos>")
        except ValueError:
            with pytest.raises(ArgumentError, match="alternate"):
                template.render(messages, add_generation_prompt=generate)
        else:
            assert template.render(messages, add_generation_prompt=generate) == expected


@given(conversations, st.booleans(), st.sampled_from([SMOLLM2, CHATML, GEMMA]))
@settings(max_examples=50)
def test_the_sandbox_renders_what_jinja2_does(messages, generate, source):
    pytest.importorskip("jinja2")
    from rustllm.models.template_sandbox import Sandbox

    try:
        expected = by_jinja(source, messages, generate, bos_token="<bos>")
    except ValueError:
        with pytest.raises(ArgumentError, match="must alternate"):
            Sandbox(source).render(messages=messages, bos_token="<bos>")
    else:
        variables = {"add_generation_prompt": generate, "bos_token": "<bos>"}
        assert Sandbox(source).render(messages=messages, **variables) == expected


@pytest.mark.parametrize("change", [(" and ", " or "), ("\n' }}", " ' }}"), ("endfor", "endfor ")])
def test_a_template_that_differs_in_a_letter_is_not_taken_for_chatml(change):
    assert ChatTemplate(SMOLLM2.replace(*change, 1)).form == "jinja2"
    assert ChatTemplate(GEMMA.replace("user", "User", 1)).form == "jinja2"


def test_without_a_template_the_vocabulary_tells_the_form():
    assert ChatTemplate(None, special_tokens={"<|im_start|>", "<|im_end|>"}).form == "chatml"
    gemma = ChatTemplate(None, special_tokens={"<start_of_turn>", "<end_of_turn>"})
    assert gemma.form == "gemma"
    with pytest.raises(UnsupportedError, match="no chat template") as caught:
        ChatTemplate(None, special_tokens={"</s>"})
    assert "generate" in caught.value.hint


def test_metadata_gives_template_and_bos():
    metadata = {
        "tokenizer.chat_template": GEMMA,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.tokens": [b"<pad>", b"<bos>"],
    }
    assert render([{"role": "user", "content": "x"}], metadata).startswith("<bos><start_of_turn>")
    with pytest.raises(UnsupportedError):
        ChatTemplate.from_metadata({"tokenizer.chat_template": 7})


def test_a_list_of_texts_is_joined_as_the_form_does():
    content = [{"type": "text", "text": " a "}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": content}]
    assert render(messages, CHATML) == ("<|im_start|>user\n a b<|im_end|>\n<|im_start|>assistant\n")
    assert render(messages, GEMMA) == by_jinja(GEMMA, messages, True)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], ArgumentError),
        (["hi"], ArgumentError),
        ([{"content": "hi"}], ArgumentError),
        ([{"role": "user"}], ArgumentError),
        ([{"role": "user", "content": None}], ArgumentError),
        ([{"role": "user", "content": [{"type": "text"}]}], ArgumentError),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], UnsupportedError),
        ([{"role": "user", "content": ["x"]}], UnsupportedError),
    ],
)
def test_messages_are_checked_before_any_template_sees_them(messages, error):
    with pytest.raises(error):
        render(messages, CHATML)


class Words:
    """A tokenizer of words that knows two special tokens."""

    special_tokens = {"<|im_start|>": 1, "<|im_end|>": 2}

    def encode(self, text, *, allowed_special=()):
        ids = []
        for part in re.split(r"(<\|im_start\|>|<\|im_end\|>)", text):
            special = part in self.special_tokens and allowed_special == "all"
            ids += [self.special_tokens[part]] if special else self.encode_ordinary(part)
        return ids

    def encode_ordinary(self, text):
        return [ord(c) + 100 for c in text]


def test_a_special_token_that_a_user_typed_stays_text():
    pieces = ChatTemplate(CHATML).pieces([{"role": "user", "content": "a<|im_end|>b"}])
    ids = encode_pieces(pieces, Words())
    assert ids.count(1) == 2 and ids.count(2) == 1
    typed = Words().encode_ordinary("user\na<|im_end|>b")
    assert ids[: len(typed) + 2] == [1, *typed, 2]


def test_without_special_tokens_in_it_the_prompt_is_encoded_as_one_text():
    pieces = ChatTemplate(SMOLLM2).pieces([{"role": "user", "content": "hello"}])
    text = "".join(piece.text for piece in pieces)
    assert encode_pieces(pieces, Words()) == Words().encode(text, allowed_special="all")


def test_pieces_of_any_template_know_what_a_message_wrote():
    pytest.importorskip("jinja2")
    source = "<s>{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}</s>{% endfor %}"
    messages = [{"role": "user", "content": " a</s> "}, {"role": "x", "content": "b"}]
    assert ChatTemplate(source).pieces(messages) == [
        Piece("<s>[user] ", True),
        Piece("a</s>", False),
        Piece("</s>[x] ", True),
        Piece("b", False),
        Piece("</s>", True),
    ]


def test_the_end_of_a_turn_is_found_in_a_foreign_template():
    source = "{{ messages[0].content }}<|eot_id|>"
    assert ChatTemplate(source, special_tokens=["<|eot_id|>"]).end_of_turn == "<|eot_id|>"
    assert ChatTemplate(source, special_tokens=[]).end_of_turn is None


def test_without_jinja2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "rustllm.models.template_sandbox", raising=False)
    template = ChatTemplate("{{ messages[0].content }}")
    with pytest.raises(MissingDependencyError) as caught:
        template.render([{"role": "user", "content": "x"}])
    assert 'pip install "rustllm[jinja2]"' in caught.value.hint
    assert caught.value.extra == "jinja2" and caught.value.exit_code == 5


def test_a_template_of_absurd_size_is_refused():
    with pytest.raises(UnsupportedError, match="characters"):
        ChatTemplate("x" * (256 * 1024 + 1))


LONG = "{% set x = 'x' * 1000000 %}"
HOSTILE = {
    "dunder": "{{ ''.__class__.__mro__ }}",
    "dunder by filter": "{{ '' | attr('__class__') }}",
    "dunder by item": "{{ messages['__class__'].__mro__ }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__globals__.x }}",
    "changing what it is given": "{% set _ = messages.append(1) %}{{ messages.clear() }}",
    "loops in loops": "{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
    "endless output": "{% for i in range(99999) %}{{ 'x' * 1000000 }}{% endfor %}",
    "a long text by *": "{{ 'x' * 10 ** 12 }}",
    "a long text by * from the left": "{{ 999999999999 * 'x' }}",
    "a long list": "{{ [0] * 999999999999 }}",
    "a long text by ~": "{% set x = 'x' * 9999999 %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
    "a long text by +": "{% set x = 'x' * 9999999 %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
    "a long text by format": "{{ '{:999999999999}'.format(1) }}",
    "a long text by %": "{{ '%999999999999d' % 1 }}",
    "a long text by center": "{{ 'x'.center(999999999999) }}",
    "a long text by the filter center": "{{ 'x' | center(999999999999) }}",
    "a long text by replace": LONG + "{{ x.replace('x', x) }}",
    "a long text by the filter replace": LONG + "{{ x | replace('x', x) }}",
    "a long text by join": LONG + "{{ x.join(range(99999)) }}",
    "a long text by the filter join": LONG + "{{ range(99999) | join(x) }}",
    "a long text by indent": "{{ ('\n' * 9999) | indent(99999999999) }}",
    "a large number": "{{ 9 ** 9 ** 9 }}",
    "a large number by *": "{% set ns = namespace(n=9) %}{% for i in range(99) %}"
    "{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "a large range": "{{ range(10 ** 10) | list }}",
    "endless recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching recursion": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for x in [[[]]] recursive %}{{ loop([[[]]]) }}{% endfor %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "an unknown filter": "{{ 'x' | urlize }}",
    "a syntax error": "{% for %}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "an undefined name": "{{ nothing.at_all }}",
    "a division by zero": "{{ 1 / 0 }}",
    "a filter on the wrong type": "{{ 5 | length }}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_template_ends_in_a_typed_error(what):
    pytest.importorskip("jinja2")
    with pytest.raises(UnsupportedError) as caught:
        render([{"role": "user", "content": "x"}], HOSTILE[what])
    assert caught.value.key == "tokenizer.chat_template"


def test_what_templates_of_real_models_use_is_offered():
    pytest.importorskip("jinja2")
    source = (
        "{%- set ns = namespace(found=false) -%}"
        "{%- for m in messages if m.role != 'skip' -%}"
        "{%- if m['content'].startswith('a') %}{% set ns.found = true %}{% break %}{% endif -%}"
        "{{ m.content.split('</think>')[-1].lstrip('\\n') }},"
        "{%- endfor -%}"
        "{{ ns.found }} {{ {'k': 'é<'} | tojson }} {{ messages | length }} "
        "{{ messages | map(attribute='role') | join('+') }} {{ messages[1:] | list | count }} "
        "{{ 'a' ~ 1 ~ 'b' }} {{ strftime_now('%Y') | int > 2000 }} "
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    )
    messages = [
        {"role": "user", "content": "x</think>\n\ny"},
        {"role": "skip", "content": "no"},
        {"role": "user", "content": "ab"},
    ]
    assert render(messages, source) == 'y,True {"k": "é<"} 3 user+skip+user 2 a1b True 2'


def test_the_default_models_file_has_the_template_that_is_built_in(smollm2_path):
    loaders = pytest.importorskip("rustllm.loaders.gguf")
    with loaders.GGUFFile(smollm2_path) as file:
        assert file.metadata["tokenizer.chat_template"] == SMOLLM2
        template = ChatTemplate.from_metadata(file.metadata)
    assert template.form == "chatml"
