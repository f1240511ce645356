"""A dataset to the Hugging Face hub; the token is that of the environment (HF_TOKEN) or of `hf auth login`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megatron.neox.errors import ResourceError, UserError


def require_token(repository: str) -> None:
    """Refuse at once what could not be pushed in the end.

    Raises:
        UserError: there is no token.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(f"no token to push to {repository} with; set HF_TOKEN, or log in: hf auth login")


def push_dataset(files: Mapping[str, Path], repository: str) -> str:
    """Upload files, by their names there, as one commit of a dataset, made where there is none; gives its address.

    Raises:
        UserError: the token does not allow this.
        ResourceError: the hub cannot be reached.
    """
    from httpx2 import HTTPError  # what the hub's client lets through
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    kept = f"the dataset is written here, and was not pushed to {repository}"
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    try:
        api.create_repo(repository, repo_type="dataset", exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload the dataset", repo_type="dataset")
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (400, 401, 403, 404):
            raise UserError(
                f"{kept}: the hub refuses (HTTP {status}); check the name, and that the token may write there"
            ) from None
        raise ResourceError(f"{kept}: the hub answered HTTP {status}; try again later") from None
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResourceError(f"{kept}: {reason}") from None
    return f"{api.endpoint}/datasets/{repository}"
