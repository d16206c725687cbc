"""Answer many prompts together: what ``rustllm generate --batch`` does."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from rustllm.cli.options import STDIN, decode_utf8, read_bytes
from rustllm.cli.output import Output
from rustllm.errors import ArgumentError, RustLLMError

__all__ = ["generate_batch", "read_prompts"]

# What a line of JSON may set for its own text.
_OWN = {
    *("max_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty"),
    *("frequency_penalty", "presence_penalty", "repeat_last_n", "seed", "stop"),
}


def read_prompts(path: str) -> list[dict[str, Any]]:
    """Read a prompt a line; of a ``.jsonl`` file a string, or an object with its own settings."""
    text = decode_utf8(read_bytes(path), path)
    lines = text.split("\n")
    if path.lower().endswith((".jsonl", ".ndjson")):
        return [_read_json(line, path, i) for i, line in enumerate(lines, 1) if line.strip()]
    return [{"prompt": line.removesuffix("\r")} for line in lines if line.strip()]


def _read_json(line: str, path: str, number: int) -> dict[str, Any]:
    def refuse(what: str) -> ArgumentError:
        return ArgumentError(
            f"line {number}: {what}",
            path="stdin" if path == STDIN else path,
            hint='a line is "a prompt" or {"prompt": "a prompt", "max_tokens": 20}',
        )

    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise refuse(f"not JSON: {error}") from error
    if isinstance(found, str):
        return {"prompt": found}
    if not isinstance(found, dict):
        raise refuse(f"{type(found).__name__} is neither a string nor an object")
    if ("prompt" in found) == ("messages" in found):
        raise refuse("an object needs either prompt or messages")
    if not isinstance(found.get("prompt", ""), str):
        raise refuse("prompt is not a string")
    for name in found.keys() - _OWN - {"prompt", "messages"}:
        raise refuse(f"unknown setting {name!r}; known are {', '.join(sorted(_OWN))}")
    if isinstance(found.get("stop"), list):
        found["stop"] = tuple(found["stop"])
    return found


def generate_batch(
    args: Namespace,
    output: Output,
    model: Any,
    prompts: list[dict[str, Any]],
    options: dict[str, Any],
    *,
    raw: bool,
) -> int:
    """Write a JSON document a line for each text, as it ends; the exit status of the first error.

    Texts are made `args.sequences` at a time and are the same as alone.
    """
    entries = [
        entry
        if raw or "messages" in entry
        else {**entry, "messages": [{"role": "user", "content": entry["prompt"]}]}
        for entry in prompts
    ]
    batch = model.generate_batch(
        (_without_prompt(entry) for entry in entries), max_sequences=args.sequences, **options
    )
    texts: dict[int, list[str]] = {}
    done = status = 0

    def write_ended() -> int:
        ended = [i for i, made in batch.generations.items() if made.finish_reason is not None]
        for index in ended:
            made = batch.generations.pop(index)  # and with it its keys and values
            output.document(
                "generate.batch",
                index=index,
                prompt=prompts[index].get("prompt"),
                text="".join(texts.pop(index, ())),
                ids=made.ids,
                finish_reason=made.finish_reason,
            )
        return len(ended)

    with output.progress() as bar:
        while True:
            try:
                index, piece = next(batch)
            except StopIteration:
                break
            except RustLLMError as error:
                index = error.fields.get("index", -1)
                if index < 0:
                    raise
                batch.generations.pop(index, None)
                texts.pop(index, None)
                output.document("generate.batch", index=index, error=str(error))
                status = status or error.exit_code
                done += 1
                continue
            texts.setdefault(index, []).append(piece)
            if not batch.n_ready:
                done += write_ended()
                bar("texts", done, len(prompts), "texts")
        write_ended()
    return status


def _without_prompt(entry: dict[str, Any]) -> dict[str, Any]:
    """What a batch takes: one of the two."""
    return {k: v for k, v in entry.items() if k != "prompt" or "messages" not in entry}
