"""A dataset to the Hugging Face hub; the token is that of the environment (HF_TOKEN) or of `hf auth login`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megatron.neox.downloads.hub import told_push_failures
from megatron.neox.errors import UserError


def require_destination(repository: str) -> None:
    """Refuse at once what could not be pushed in the end.

    Raises:
        UserError: it is no name of a dataset, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: {error}") from error
    if "/" not in repository:
        raise UserError(
            f"--push {repository}: a dataset of the hub is USER/NAME; give the user or organisation too"
        )
    if get_token() is None:
        raise UserError(f"no token to push to {repository} with; set HF_TOKEN, or log in: hf auth login")


def push_dataset(files: Mapping[str, Path], repository: str) -> str:
    """Upload files, by their names there, as one commit of a dataset, made where there is none; gives its address.

    Raises:
        UserError: the token does not allow this.
        ResourceError: the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    with told_push_failures(f"the dataset is written here, and was not pushed to {repository}"):
        api.create_repo(repository, repo_type="dataset", exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload the dataset", repo_type="dataset")
    return f"{api.endpoint}/datasets/{repository}"
