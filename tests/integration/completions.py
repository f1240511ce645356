"""A server on this machine that answers /v1/completions as OpenAI's did, from a tiny real model, and can misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.loopback import QuietHandler, serving_here


@dataclass
class Completions:
    """What is served, the faults of the next answers, one each in order, and what was asked.

    Faults: "throttle" answers 429 with Retry-After 0, a number that status, "garbage" no JSON, "cut" half of the body,
    "empty" no logprobs, "null" a null among them.
    """

    folder: Path
    context: int = 48
    takes_no_new_tokens: bool = True
    tells_offsets: bool = True
    faults: list[str | int] = field(default_factory=list)
    always: str | int | None = None
    keys: set[str] = field(default_factory=set)
    prompts: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(self.folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)

    @torch.inference_mode()
    def complete(self, prompt: str, num_new: int) -> dict[str, Any] | str:
        """OpenAI's answer with echo, or why there is none."""
        encoded = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = list(encoded["input_ids"]), [start for start, _ in encoded["offset_mapping"]]
        if num_new == 0 and not self.takes_no_new_tokens:
            return "max_tokens must be at least 1, got 0."
        if len(ids) + num_new > self.context:
            return (
                f"This model's maximum context length is {self.context} tokens, however you requested "
                f"{len(ids) + num_new} tokens. Please reduce your prompt; or completion length."
            )
        logits = self.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        values: list[float | None] = [None]
        values += [float(logits[place, token]) for place, token in enumerate(ids[1:])]
        texts = [prompt[place:end] for place, end in encoded["offset_mapping"]]
        for _ in range(num_new):
            texts.append("?")
            places.append(len(prompt))
            values.append(-1.0)
        logprobs: dict[str, Any] = {"tokens": texts, "token_logprobs": values, "top_logprobs": None}
        if self.tells_offsets:
            logprobs["text_offset"] = places
        usage = {"prompt_tokens": len(ids), "completion_tokens": num_new}
        return {
            "object": "text_completion",
            "choices": [{"text": prompt, "logprobs": logprobs}],
            "usage": usage,
        }


def _handler(served: Completions) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.keys.add(self.headers.get("Authorization", ""))
            fault = served.faults.pop(0) if served.faults else served.always
            if fault == "throttle":
                return self._send(429, _error("Rate limit reached"), **{"Retry-After": "0"})
            if isinstance(fault, int):
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                return self._send(fault, _error(f"status {fault} for the key {key}"))
            if fault == "garbage":
                return self._send(200, b"<html>not what you are looking for</html>")
            if self.path != "/v1/completions" or asked["model"] != "tiny":
                return self._send(404, _error("no such model"))
            assert asked["echo"] is True
            assert asked["logprobs"] == 0
            answer = served.complete(asked["prompt"], asked["max_tokens"])
            if isinstance(answer, str):
                return self._send(400, _error(answer))
            if fault == "empty":
                answer["choices"][0]["logprobs"] = None
            if fault == "null":
                answer["choices"][0]["logprobs"]["token_logprobs"][-1] = None
            served.prompts.append(asked["prompt"])
            return self._send(200, json.dumps(answer).encode(), is_cut=fault == "cut")

        def _send(self, status: int, body: bytes, *, is_cut: bool = False, **headers: str) -> None:
            served.statuses.append(status)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = self.close_connection or is_cut

    return Handler


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


@contextmanager
def serve(served: Completions) -> Iterator[Completions]:
    """Run the server while the block runs; `url` is set."""
    with serving_here(_handler(served)) as address:
        served.url = f"{address}/v1"
        yield served
