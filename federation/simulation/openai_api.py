"""Bodies of the OpenAI HTTP API as the stand-in engine reads and writes them, in vLLM's manner."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from federation.simulation.stand_in import CHARACTERS_PER_TOKEN, Ticket

# What it answers with, over and over.
WORDS = (
    "the",
    "node",
    "answers",
    "with",
    "words",
    "that",
    "mean",
    "nothing",
    "but",
    "come",
    "at",
    "the",
    "right",
    "time",
)


class BadRequest(Exception):
    """The body is not acceptable; the message names the field. Answered with the status and as OpenAI's error."""

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked body of a completion request."""

    chat: bool
    model: str
    prompt: str
    prompt_tokens: int
    max_tokens: int
    min_tokens: int
    stream: bool
    include_usage: bool


def read_generation(body: object, chat: bool, models: Sequence[str], max_model_len: int) -> Generation:
    """Checks a body as vLLM does. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    model = body.get("model")
    if model not in models:
        raise BadRequest(f"The model `{model}` does not exist.", 404, "NotFoundError")
    if body.get("n", 1) != 1:
        raise BadRequest("n must be 1: the stand-in answers once")
    prompt = _chat_prompt(body.get("messages")) if chat else _plain_prompt(body.get("prompt"))
    tokens = len(prompt) if isinstance(prompt, list) else max(1, math.ceil(len(prompt) / CHARACTERS_PER_TOKEN))
    if tokens >= max_model_len:
        raise BadRequest(
            f"the prompt has {tokens} tokens; the context holds {max_model_len}, one of the answer included"
        )
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is None:
        # OpenAI's completions end after 16 tokens by default, chats at the end of the context.
        limit = max_model_len - tokens if chat else min(16, max_model_len - tokens)
    least = body.get("min_tokens", 0)
    for name, value, low in (("max_tokens", limit, 1), ("min_tokens", least, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise BadRequest(f"{name} must be an integer of at least {low}, got {value!r}")
    if tokens + limit > max_model_len:
        raise BadRequest(
            f"the context holds {max_model_len} tokens; {tokens} of the prompt and max_tokens {limit} exceed it"
        )
    if least > limit:
        raise BadRequest(f"min_tokens {least} exceeds max_tokens {limit}")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options must be an object")
    return Generation(
        chat=chat,
        model=str(model),
        prompt=" ".join(map(str, prompt)) if isinstance(prompt, list) else prompt,
        prompt_tokens=tokens,
        max_tokens=limit,
        min_tokens=limit if body.get("ignore_eos") else least,
        stream=bool(body.get("stream", False)),
        include_usage=bool(options.get("include_usage", False)),
    )


def _chat_prompt(messages: object) -> str:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    parts = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(f"messages[{index}] must be an object with a role")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str):
            raise BadRequest(f"messages[{index}].content must be a string or a list of parts")
        parts.append(f"{message['role']}: {content}\n")
    return "".join(parts)


def _plain_prompt(prompt: object) -> str | list[int]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return prompt
    raise BadRequest("prompt must be a string or a list of token ids; one prompt a request")


def word(ticket: Ticket, index: int) -> str:
    return WORDS[(ticket.prompt_tokens + index) % len(WORDS)] + " "


def usage(ticket: Ticket) -> dict[str, object]:
    return {
        "prompt_tokens": ticket.prompt_tokens,
        "completion_tokens": ticket.output_tokens,
        "total_tokens": ticket.prompt_tokens + ticket.output_tokens,
        "prompt_tokens_details": {"cached_tokens": ticket.cached_tokens},
    }


def _envelope(asked: Generation, ticket: Ticket, kind: str) -> dict[str, object]:
    prefix = "chatcmpl" if asked.chat else "cmpl"
    return {"id": f"{prefix}-{ticket.request_id}", "object": kind, "created": int(time.time()), "model": asked.model}


def answer(asked: Generation, ticket: Ticket) -> dict[str, object]:
    text = "".join(word(ticket, index) for index in range(ticket.output_tokens))
    content: dict[str, object] = {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": ticket.finish_reason}
    kind = "chat.completion" if asked.chat else "text_completion"
    return {**_envelope(asked, ticket, kind), "choices": [choice], "usage": usage(ticket)}


def chunk(asked: Generation, ticket: Ticket, delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    content: dict[str, object] = {"delta": delta} if asked.chat else {"text": delta.get("content", "")}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
    kind = "chat.completion.chunk" if asked.chat else "text_completion"
    return {**_envelope(asked, ticket, kind), "choices": [choice]}


def sse_event(body: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
