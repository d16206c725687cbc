"""Talk to a model: one question, or a conversation.

With a question the answer is printed and the command ends. Without one it asks: at a terminal with
a prompt, otherwise one turn per line of stdin. /reset forgets the conversation, /exit leaves.

examples:
  rustllm chat
  rustllm chat "Name three prime numbers."
  rustllm chat --system "Answer in one sentence." --temperature 0 "What is a token?"
  cat question.txt | rustllm chat -
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from rustllm.cli.generate import describe_speed
from rustllm.cli.options import (
    STDIN,
    add_generation_arguments,
    add_model_arguments,
    add_sampling_arguments,
    add_text_arguments,
    decode_utf8,
    read_text,
    sampling_options,
)
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_draft, open_model

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_text_arguments(parser, what="question")
    parser.add_argument("--system", metavar="TEXT", help="instructions before the conversation")
    add_model_arguments(parser)
    add_sampling_arguments(parser)
    add_generation_arguments(parser)


class Conversation:
    """The messages so far and the model that answers them. Used by one thread."""

    def __init__(self, model: Any, args: Namespace, output: Output) -> None:
        self._model = model
        self._options = sampling_options(args)
        if args.draft is not None:
            self._options["draft"] = open_draft(args.draft, args, output)
        self._state = model.new_state(context=args.context)
        self._system = args.system
        self._output = output
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system's instructions."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def ask(self, question: str) -> None:
        """Put a question; stream the answer, or print it as a document."""
        self.messages.append({"role": "user", "content": question})
        started = time.perf_counter()
        first = None
        answer: list[str] = []
        ids: list[int] = []
        logprobs: list[float] = []
        tops: list[Any] = []
        pieces = self._model.chat(self.messages, state=self._state, **self._options)
        for piece in pieces:
            first = first or time.perf_counter()
            answer.append(piece)
            ids.extend(piece.ids)
            logprobs.extend(piece.logprobs)
            tops.extend(piece.top_logprobs)
            if not self._output.json:
                self._output.write(piece)
        ended = time.perf_counter()
        text = "".join(answer)
        self.messages.append({"role": "assistant", "content": text})
        seconds = {"first": (first or ended) - started, "all": ended - started}
        if self._output.json:
            rounded = {key: round(value, 4) for key, value in seconds.items()}
            self._output.document(
                "chat",
                messages=self.messages,
                ids=ids,
                logprobs=logprobs,
                **({"top_logprobs": tops} if tops else {}),
                finish_reason=pieces.finish_reason,
                seconds=rounded,
            )
        else:
            if not text.endswith("\n"):
                self._output.line()
            self._output.note(describe_speed(len(ids), {"load": 0.0, **seconds}))


def run(args: Namespace) -> int:
    """Answer once, or until the input ends."""
    output = Output.of(args)
    once = args.text is not None or args.file is not None
    question = read_text(args, what="question") if once else None
    conversation = Conversation(open_model(args, output), args, output)
    if question is not None:
        conversation.ask(question)
        return 0
    if not sys.stdin.isatty():
        for raw in sys.stdin.buffer:
            _turn(conversation, decode_utf8(raw, STDIN).strip())
        return 0
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # line editing and history for input()
    output.note("/reset forgets the conversation, /exit or Ctrl-D leaves")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            output.line()
            return 0
        if not _turn(conversation, line):
            return 0


def _turn(conversation: Conversation, line: str) -> bool:
    """Do what one line of input asks; False ends the conversation."""
    if line == "/exit":
        return False
    if line == "/reset":
        conversation.reset()
    elif line:
        conversation.ask(line)
    return True
