"""config.json, read so that nothing it asks for is overlooked: every problem is recorded with its key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.neox.errors import CheckpointError


class Settings:
    """The keys of a config.json.

    Args:
        path: the file.
        content: what it holds.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.content = content
        self.problems: list[str] = []

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the file.

        Raises:
            CheckpointError: it is absent, or no JSON object.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; give a folder that save_pretrained wrote") from None
        except (ValueError, OSError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); take a fresh copy") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__} instead of a model's settings")
        return cls(path, content)

    def get(self, *names: str, default: Any) -> Any:
        """Value of the first of the names that is given, else the default."""
        return next((self.content[name] for name in names if name in self.content), default)

    def refuse(self, key: str, reason: str) -> None:
        """Record that the value of a key cannot be honoured."""
        self.problems.append(f"{key} is {json.dumps(self.content.get(key))}: {reason}")

    def demand(self, key: str, *allowed: Any, reason: str) -> None:
        """Refuse any value of a key but those that ask for nothing (null always is one)."""
        value = self.content.get(key)
        if value is not None and value not in allowed:
            self.refuse(key, reason)

    def rope(self, *, fraction: float) -> dict[str, Any]:
        """YAML keys of rotary positions, of transformers 5's `rope_parameters` or the keys of before.

        Args:
            fraction: rotary_pct where nothing says.
        """
        blocks = [self.content.get(key) or {} for key in ("rope_parameters", "rope_scaling")]
        for key, block in zip(("rope_parameters", "rope_scaling"), blocks, strict=True):
            if block.get("rope_type", block.get("type", "default")) not in ("default", None):
                self.refuse(key, "stretched rotary positions are not implemented")
        ways = {
            "rotary_emb_base": (("rotary_emb_base", "rope_theta"), "rope_theta", 10000.0),
            "rotary_pct": (("rotary_pct", "partial_rotary_factor"), "partial_rotary_factor", fraction),
        }
        keys = {}
        for ours, (names, inside, default) in ways.items():
            said = {float(self.content[name]) for name in names if self.content.get(name) is not None}
            said |= {float(block[inside]) for block in blocks[:1] if block.get(inside) is not None}
            if len(said) > 1:
                self.problems.append(
                    f"{', '.join(names)} and rope_parameters.{inside} contradict: {sorted(said)}"
                )
            keys[ours] = next(iter(said), default)
        return keys
