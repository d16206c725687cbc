"""From messages to the text that a chat model was trained on.

Two forms are built in, so that common models need no extra package: ChatML and Gemma 3. They are
used when a file's template *is* one of them, letter by letter, or when it has none and the
vocabulary tells the form; any other template runs in :mod:`rustllm.models.template_sandbox`.

A rendered prompt is kept as pieces that know whether the template wrote them or a message did, so
that ``<|im_end|>`` in what a user typed stays text and never becomes the special token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from rustllm.errors import ArgumentError, UnsupportedError

__all__ = ["ChatTemplate", "Piece", "encode_pieces", "render"]

MAX_TEMPLATE_BYTES = 256 << 10

Message = Mapping[str, Any]


class Piece(NamedTuple):
    """A stretch of a rendered prompt.

    Attributes
    ----------
    text : str
    is_markup : bool
        Written by the template; otherwise it comes from a message.
    """

    text: str
    is_markup: bool


class ChatTemplate:
    """How a model wants its messages written.

    Parameters
    ----------
    source : str or None
        The template's text (jinja2) as the model's file has it; None if it has none.
    special_tokens : collection of str
        Special tokens of the vocabulary: they tell the form when there is no template.
    bos_token, eos_token : str
        What the template's variables of these names hold.

    Attributes
    ----------
    form : {"chatml", "gemma", "jinja2"}
        What renders it.
    end_of_turn : str or None
        The special token that ends an answer, where the form has one.

    Raises
    ------
    UnsupportedError
        No template and no form that the vocabulary tells, or a template over 256 KiB.

    Notes
    -----
    Immutable and thread-safe.

    Examples
    --------
    >>> from rustllm.models.chat_template import ChatTemplate
    >>> template = ChatTemplate(None, special_tokens=["<|im_start|>", "<|im_end|>"])
    >>> print(template.render([{"role": "user", "content": "Hi"}]))
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    <BLANKLINE>
    """

    __slots__ = ("_bos", "_default_system", "_eos", "_jinja", "end_of_turn", "form", "source")

    def __init__(
        self,
        source: str | None,
        *,
        special_tokens: Collection[str] = (),
        bos_token: str = "",
        eos_token: str = "",
    ) -> None:
        self.source = source
        self._bos = bos_token
        self._eos = eos_token
        self._jinja: Any = None
        self._default_system: str | None = None
        self.form = self._recognise(special_tokens)
        ends = {"chatml": "<|im_end|>", "gemma": "<end_of_turn>"}
        self.end_of_turn = ends.get(self.form) or self._end_of_turn_in_source(special_tokens)

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], *, special_tokens: Collection[str] = ()
    ) -> ChatTemplate:
        """Make the template of a GGUF file from its metadata.

        Examples
        --------
        >>> from rustllm.models.chat_template import ChatTemplate
        >>> metadata = {"tokenizer.chat_template": "{{ messages[0].content }}!"}
        >>> ChatTemplate.from_metadata(metadata).form
        'jinja2'
        """
        source = metadata.get("tokenizer.chat_template")
        if source is not None and not isinstance(source, str):
            raise UnsupportedError("the chat template is not a text", key="tokenizer.chat_template")
        return cls(
            source,
            special_tokens=special_tokens,
            bos_token=_token_of(metadata, "bos"),
            eos_token=_token_of(metadata, "eos"),
        )

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Return the prompt as one text.

        Parameters
        ----------
        messages : sequence of mappings
            Each with ``role`` and ``content``: a text, or a list of ``{"type": "text", "text":
            ...}``.
        add_generation_prompt : bool
            End with what introduces the model's answer.

        Raises
        ------
        ArgumentError
            A message has no role or content, or the template refuses the order of roles.
        UnsupportedError
            A message holds an image or sound, or the template breaks a bound of the sandbox.
        MissingDependencyError
            The template needs jinja2 and it is not installed.
        """
        pieces = self.pieces(messages, add_generation_prompt=add_generation_prompt)
        return "".join(piece.text for piece in pieces)

    def pieces(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[Piece]:
        """Return the prompt as pieces that know where they come from; see :meth:`render`."""
        turns = [_checked(message, i) for i, message in enumerate(messages)]
        if not turns:
            raise ArgumentError("there is no message", hint="pass at least one")
        if self.form == "chatml":
            return _chatml(turns, self._default_system, add_generation_prompt)
        if self.form == "gemma":
            return _gemma(turns, self._bos, add_generation_prompt)
        from rustllm.models.template_sandbox import Sandbox

        if self._jinja is None:
            assert self.source is not None
            self._jinja = Sandbox(self.source)
        text = self._jinja.render(
            messages=list(messages),
            add_generation_prompt=add_generation_prompt,
            bos_token=self._bos,
            eos_token=self._eos,
        )
        return _found(text, [part for turn in turns for part in turn.texts])

    def _recognise(self, special_tokens: Collection[str]) -> str:
        if self.source is None:
            if "<|im_start|>" in special_tokens and "<|im_end|>" in special_tokens:
                return "chatml"
            if "<start_of_turn>" in special_tokens and "<end_of_turn>" in special_tokens:
                return "gemma"
            raise UnsupportedError(
                "the model has no chat template, and its vocabulary tells none",
                hint="it may be a base model: continue a text with generate instead",
                key="tokenizer.chat_template",
            )
        if len(self.source) > MAX_TEMPLATE_BYTES:
            raise UnsupportedError(
                f"the chat template has {len(self.source)} characters, more than "
                f"{MAX_TEMPLATE_BYTES}",
                key="tokenizer.chat_template",
            )
        chatml = _CHATML.fullmatch(self.source)
        if chatml is not None:
            system = chatml["system"]
            self._default_system = None if system is None else _NEWLINE_ESCAPE.sub("\n", system)
            return "chatml"
        if hashlib.sha256(self.source.strip().encode()).hexdigest() in _GEMMA_SHA256:
            return "gemma"
        return "jinja2"

    def _end_of_turn_in_source(self, special_tokens: Collection[str]) -> str | None:
        for token in ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<|endoftext|>"):
            if self.source is not None and token in self.source and token in special_tokens:
                return token
        return None


def render(
    messages: Sequence[Message],
    template: str | Mapping[str, Any] | None,
    *,
    add_generation_prompt: bool = True,
    special_tokens: Collection[str] = (),
    bos_token: str = "",
    eos_token: str = "",
) -> str:
    """Write messages as a template asks for; :class:`ChatTemplate` keeps the template.

    Parameters
    ----------
    messages : sequence of mappings
        Each with ``role`` and ``content``.
    template : str, mapping or None
        The template's text, the metadata of a GGUF file, or None: the vocabulary's form.
    add_generation_prompt : bool
        End with what introduces the model's answer.

    Raises
    ------
    ArgumentError, UnsupportedError, MissingDependencyError
        As :class:`ChatTemplate` and :meth:`ChatTemplate.render`.

    Examples
    --------
    >>> from rustllm.models.chat_template import render
    >>> specials = ["<start_of_turn>", "<end_of_turn>"]
    >>> render([{"role": "user", "content": " Hi "}], None, special_tokens=specials)
    '<start_of_turn>user\\nHi<end_of_turn>\\n<start_of_turn>model\\n'
    """
    if isinstance(template, Mapping):
        chosen = ChatTemplate.from_metadata(template, special_tokens=special_tokens)
    else:
        chosen = ChatTemplate(
            template, special_tokens=special_tokens, bos_token=bos_token, eos_token=eos_token
        )
    return chosen.render(messages, add_generation_prompt=add_generation_prompt)


class _Tokenizer(Protocol):
    @property
    def special_tokens(self) -> Mapping[str, int]: ...

    def encode(self, text: str, *, allowed_special: Any = ...) -> list[int]: ...

    def encode_ordinary(self, text: str) -> list[int]: ...


def encode_pieces(pieces: Sequence[Piece], tokenizer: _Tokenizer) -> list[int]:
    """Return the ids of a rendered prompt; only the template's special tokens are special.

    Ordinary text is encoded across pieces, as if the prompt were one text. No BOS is added: where a
    model wants one, its template writes it.

    Parameters
    ----------
    pieces : sequence of Piece
        From :meth:`ChatTemplate.pieces`.
    tokenizer : Tokenizer

    Returns
    -------
    list of int
    """
    special = tokenizer.special_tokens
    typed = [piece.text for piece in pieces if not piece.is_markup]
    if not any(token in text for text in typed for token in special):
        return list(
            tokenizer.encode("".join(piece.text for piece in pieces), allowed_special="all")
        )
    markup = "\0".join(piece.text for piece in pieces if piece.is_markup)
    used = sorted((token for token in special if token in markup), key=len, reverse=True)
    split = re.compile("|".join(map(re.escape, used)) or r"(?!)")
    ids: list[int] = []
    pending: list[str] = []

    def flush() -> None:
        if text := "".join(pending):
            ids.extend(tokenizer.encode_ordinary(text))
        pending.clear()

    for piece in pieces:
        if not piece.is_markup:
            pending.append(piece.text)
            continue
        at = 0
        for match in split.finditer(piece.text):
            pending.append(piece.text[at : match.start()])
            flush()
            ids.append(special[match[0]])
            at = match.end()
        pending.append(piece.text[at:])
    flush()
    return ids


# A line end inside a quoted text of a template: itself, or the escape for it.
_LINE_END = r"(?:\n|\\n)"
_NEWLINE_ESCAPE = re.compile(r"\\n")


def _template_pattern(*parts: str) -> str:
    return "".join(re.escape(part).replace("\\\n", _LINE_END) for part in parts)


# ChatML as templates write it: optionally with a default system message, whose text is free.
_CHATML = re.compile(
    _template_pattern("{% for message in messages %}")
    + "(?:"
    + _template_pattern(
        "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    )
    + r"(?P<system>(?:[^'\\{}]|\\n)*)"
    + _template_pattern("<|im_end|>\n' }}{% endif %}")
    + ")?"
    + _template_pattern(
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    )
)

# The template of the instruction-tuned Gemma 3 models, with line ends as such and as escapes.
_GEMMA_SHA256 = frozenset(
    (
        "8d9e3a3c114fb2053ec500184677af4f7e5f8ec2582443cd535834e68b3ade29",
        "86327804b5430b642274fe55ba95199e91cf7eca7b1e1240ca5469f23839e223",
    )
)


class _Turn(NamedTuple):
    role: str
    texts: tuple[str, ...]  # one for a text, one for each item of a list


def _checked(message: Message, index: int) -> _Turn:
    """Check one message, so that no template sees what it was not written for."""
    if not isinstance(message, Mapping):
        raise ArgumentError(
            f"message {index} is a {type(message).__name__}, not a mapping",
            hint='write {"role": "user", "content": "..."}',
        )
    role = message.get("role")
    content = message.get("content")
    if not isinstance(role, str) or not role:
        raise ArgumentError(f"message {index} has no role", hint="user, assistant or system")
    if isinstance(content, str):
        return _Turn(role, (content,))
    if not isinstance(content, (list, tuple)):
        raise ArgumentError(f"message {index} has no content", hint="a text, or a list of texts")
    texts = []
    for item in content:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind != "text":
            raise UnsupportedError(f"message {index} holds {kind or 'something'} that is not text")
        if not isinstance(item.get("text"), str):
            raise ArgumentError(f"message {index} has an item of type text without a text")
        texts.append(item["text"])
    return _Turn(role, tuple(texts))


def _chatml(turns: list[_Turn], default_system: str | None, generate: bool) -> list[Piece]:
    pieces = []
    if default_system is not None and turns[0].role != "system":
        pieces.append(Piece(f"<|im_start|>system\n{default_system}<|im_end|>\n", True))
    for turn in turns:
        pieces += [
            Piece("<|im_start|>", True),
            Piece(turn.role, False),
            Piece("\n", True),
            Piece("".join(turn.texts), False),
            Piece("<|im_end|>\n", True),
        ]
    if generate:
        pieces.append(Piece("<|im_start|>assistant\n", True))
    return pieces


def _gemma(turns: list[_Turn], bos: str, generate: bool) -> list[Piece]:
    pieces = [Piece(bos, True)]
    prefix = ""
    if turns[0].role == "system":
        # Gemma has no system turn: its text, not trimmed, leads the first user's.
        prefix = turns[0].texts[0] + "\n\n" if turns[0].texts else "\n\n"
        turns = turns[1:]
    for i, turn in enumerate(turns):
        if (turn.role == "user") != (i % 2 == 0):
            raise ArgumentError(
                "the roles of a conversation with this model must alternate: user, assistant, ...",
                hint=f"turn {i + 1} is of {turn.role}",
            )
        pieces += [
            Piece("<start_of_turn>", True),
            Piece("model" if turn.role == "assistant" else turn.role, False),
            Piece("\n", True),
            Piece(prefix + "".join(text.strip() for text in turn.texts), False),
            Piece("<end_of_turn>\n", True),
        ]
        prefix = ""
    if generate:
        pieces.append(Piece("<start_of_turn>model\n", True))
    return pieces


def _found(text: str, contents: list[str]) -> list[Piece]:
    """Cut a rendered text at the messages' contents, which templates keep in order.

    A content that the template changed (but for white space around it) is not found, and what was
    made of it counts as the template's own.
    """
    pieces = []
    at = 0
    for content in contents:
        for form in (content, content.strip()):
            start = text.find(form, at) if form else -1
            if start >= 0:
                pieces.append(Piece(text[at:start], True))
                pieces.append(Piece(form, False))
                at = start + len(form)
                break
    pieces.append(Piece(text[at:], True))
    return [piece for piece in pieces if piece.text]


def _token_of(metadata: Mapping[str, Any], kind: str) -> str:
    number = metadata.get(f"tokenizer.ggml.{kind}_token_id")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(number, int) or tokens is None or not 0 <= number < len(tokens):
        return ""
    token = tokens[number]
    return token.decode("utf-8", "replace") if isinstance(token, bytes) else str(token)
