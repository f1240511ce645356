"""A tokenizer of the Hugging Face hub, or of a folder in its form, as the settings that build it here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.config import TokenizerConfig
from megatron.neox.errors import InputError, ResourceError, VocabularyError
from megatron.neox.tokenizers.export import first_token
from megatron.neox.tokenizers.gpt2_bpe import GPT2BPETokenizer
from megatron.neox.tokenizers.huggingface import HFTokenizer
from megatron.neox.tokenizers.tokenizer import Tokenizer
from megatron.neox.tokenizers.train import PADDING

_MAIN, _SETTINGS = "tokenizer.json", "tokenizer_config.json"


@dataclass(frozen=True)
class Pretrained:
    """A tokenizer.json, and what tokenizer_config.json says of it."""

    section: TokenizerConfig
    settings: dict[str, Any]

    def pad_token(self, tokenizer: HFTokenizer) -> int | None:
        """The id that fills, where one is named."""
        return _id_of(self.settings.get("pad_token"), tokenizer)

    def bos_token(self, tokenizer: HFTokenizer) -> int | None:
        """The id that begins texts, where one is named."""
        return _id_of(self.settings.get("bos_token"), tokenizer)

    def first_token(self, tokenizer: HFTokenizer) -> int | None:
        """The id that transformers puts before a text, where it does."""
        if self.settings.get("add_bos_token"):
            return self.bos_token(tokenizer)
        if "add_bos_token" in self.settings:
            return None
        return first_token(json.loads(tokenizer.engine.to_str()))


def find_pretrained(name: str) -> Pretrained:
    """Look for a folder of that name, else ask the hub; only the tokenizer's two files are fetched.

    Raises:
        InputError: there is neither a folder nor a model of that name that may be read.
        ResourceError: the hub cannot be reached.
        VocabularyError: it has no tokenizer.json, or its settings are no JSON.
    """
    folder = Path(name)
    main, settings = (
        (folder / _MAIN, folder / _SETTINGS)
        if folder.is_dir()
        else (_fetch(name, _MAIN), _fetch(name, _SETTINGS))
    )
    if main is None or not main.is_file():
        raise VocabularyError(
            f"{name} has no {_MAIN}; give a tokenizer that has one, or --vocab-file and --merge-file"
        )
    section = TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(main))
    if settings is None or not settings.is_file():
        return Pretrained(section, {})
    try:
        return Pretrained(section, dict(json.loads(settings.read_text(encoding="utf-8"))))
    except (ValueError, TypeError) as error:
        raise VocabularyError(f"{settings} is damaged ({error}); fetch it again") from error


def padding_of(tokenizer: Tokenizer) -> int | None:
    """The id of `<|padding|>` in a vocabulary that has it."""
    if isinstance(tokenizer, GPT2BPETokenizer | HFTokenizer):
        return tokenizer.engine.token_to_id(PADDING)
    return None


def _fetch(name: str, file: str) -> Path | None:
    """The file from the hub's cache, fetched where it is absent or old; None where the model has none."""
    from httpx2 import HTTPError  # what the hub's client lets through
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, file))
    except EntryNotFoundError as error:
        if isinstance(error, HfHubHTTPError):
            return None
        raise ResourceError(_unreachable(name, "no connection")) from None
    except HfHubHTTPError as error:
        raise InputError(
            f"{name} is neither a folder here nor a model on the Hugging Face hub that you may read "
            f"(HTTP {error.response.status_code}); a private one needs a login: hf auth login"
        ) from None
    except HFValidationError as error:
        raise InputError(
            f"there is no folder {name}, and it is no name of the Hugging Face hub either"
        ) from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResourceError(_unreachable(name, reason)) from None


def _unreachable(name: str, reason: str) -> str:
    return (
        f"{name} is no folder here, and the Hugging Face hub cannot be reached ({reason}); download its tokenizer.json "
        "and tokenizer_config.json elsewhere, and give their folder, or give --vocab-file and --merge-file"
    )


def _id_of(token: Any, tokenizer: HFTokenizer) -> int | None:
    piece = token.get("content") if isinstance(token, dict) else token
    return None if piece is None else tokenizer.engine.token_to_id(piece)
