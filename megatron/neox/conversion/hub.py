"""The Hugging Face hub: models by name, down and up. Code is never fetched, and the token is never shown."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from httpx2 import HTTPError  # what the hub's client lets through
from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from megatron.neox.config import ModelConfig
from megatron.neox.downloads.hub import told_push_failures
from megatron.neox.errors import InputError, ResourceError
from megatron.neox.layouts.huggingface.family import is_tanh_gelu

log = logging.getLogger(__name__)

POLYCODER = ("NinedayWang/PolyCoder-160M", "NinedayWang/PolyCoder-0.4B", "NinedayWang/PolyCoder-2.7B")
"""PolyCoder's released models."""

# (num_layers, hidden_size, num_attention_heads) of the three.
_POLYCODER_SIZES = {(12, 768, 12), (24, 1024, 16), (32, 2560, 32)}
_POLYCODER_ROWS = 50304

_TEXTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "merges.txt",
)  # fmt: skip
_WEIGHTS = (
    ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"),
)


def is_polycoder(model: ModelConfig) -> bool:
    """Whether an architecture is that of one of PolyCoder's released models."""
    sizes = (model.num_layers, model.hidden_size, model.num_attention_heads)
    return (
        sizes in _POLYCODER_SIZES and model.padded_vocab_size == _POLYCODER_ROWS and not model.gpt_j_residual
    )


def notes_about(model: ModelConfig) -> list[str]:
    """What someone who has a model of this architecture should know."""
    if not is_polycoder(model) or is_tanh_gelu(model):
        return []
    return [
        "its config says gelu by erf, as PolyCoder's published ones do, and that is kept; PolyCoder was trained with "
        "gelu's tanh approximation (bias_gelu_fusion): --gelu tanh writes that"
    ]


def download(name: str, *, revision: str | None = None, also: Sequence[str] = ()) -> Path:
    """Fetch a model's settings, tokenizer and weights into the hub's own cache.

    Args:
        revision: branch, tag or commit; none is main.
        also: further files that are wanted, where there are any.

    Raises:
        InputError: there is no such model, or it holds no weights that can be read.
        ResourceError: the hub cannot be reached.
    """
    try:
        present = [file.rfilename for file in HfApi().model_info(name, revision=revision).siblings or []]
        weights = next((kind for kind in _WEIGHTS if any(fnmatch(f, p) for f in present for p in kind)), None)
        if weights is None or "config.json" not in present:
            raise InputError(
                f"{name} on the Hugging Face hub holds no config.json with safetensors or .bin weights"
            )
        patterns = [*_TEXTS, *weights, *also]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise InputError(
                f"{name} is neither a folder here nor a model on the Hugging Face hub that you may read "
                f"(HTTP {status}); a private one needs a login: hf auth login"
            ) from None
        raise ResourceError(
            f"the Hugging Face hub answered HTTP {status} for {name}; try again later"
        ) from None
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ResourceError(
            f"{name} is no folder here, and the Hugging Face hub cannot be reached ({_first_line(error)}); "
            "download it elsewhere, and give the folder"
        ) from None


def has_token() -> bool:
    """Whether there is a token to push with; it is not shown."""
    return get_token() is not None


def push(folder: Path, repository: str) -> str:
    """Upload a folder as a model, made where there is none; returns its address.

    The token is that of the environment (HF_TOKEN) or of `hf auth login`.

    Raises:
        UserError: there is no token, or it does not allow this.
        ResourceError: the hub cannot be reached.
    """
    api = HfApi()
    with told_push_failures(f"{folder} is written, and was not pushed to {repository}"):
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload the model")
    return f"{api.endpoint}/{repository}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
