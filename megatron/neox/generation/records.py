"""What was generated, in the fields of GPT-NeoX's JSONL files, and how it was sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DID_NOT_START = "WARNING: text generation did not start; try different batching or adjust parameters"


@dataclass(frozen=True)
class Record:
    """One sample of one prompt."""

    context: str
    """The prompt."""
    text: str | None
    """What follows the prompt, up to and without the stop text; none where the document ended at once."""
    length: int
    """Tokens sampled; the one that ends the document does not count, those of a stop text do."""
    finished: bool
    """Whether the sample ended by itself: end of document or a stop text."""
    message: str | None
    duration_seconds: float
    """From the start of its batch to its last token."""
    token_ids: tuple[int, ...] = ()
    """The tokens sampled; not written to files."""
    logprobs: tuple[float, ...] | None = None
    """log p of each token by the model itself, whatever the sampler made of it (nats); with return_logits."""
    sampling: Mapping[str, float | int] = field(default_factory=dict)
    """What decides which sample of its prompt this is: its number, the sampler's options, the seed."""

    def to_json(self) -> str:
        """One line of a JSONL file."""
        fields: dict[str, Any] = {
            "context": self.context,
            "text": self.text,
            "length": self.length,
            "finished": self.finished,
            "message": self.message,
            "duration_seconds": round(self.duration_seconds, 6),
            **self.sampling,
        }
        if self.logprobs is not None:
            fields["logprobs"] = [round(value, 6) for value in self.logprobs]
        return json.dumps(fields, ensure_ascii=False)
