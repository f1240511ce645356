"""The Hugging Face hub: a file of a dataset by its hf:// path, and what may go wrong where something is pushed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from megatron.neox.downloads.fetch import Fetcher, Patience, Refused, Remote, Report
from megatron.neox.downloads.lock import alone_in
from megatron.neox.errors import InputError, ResourceError, UserError

SCHEME = "hf://"
_ADDRESS = "https://huggingface.co"
_MAIN = "main"
_FORM = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?/(?P<file>.+)")


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset."""

    name: str
    revision: str
    file: str

    def path_in(self, folder: Path) -> Path:
        """Where it lies among others: languages of The Stack have files of the same name, and so have revisions."""
        revision = "" if self.revision == _MAIN else f"@{quote(self.revision, safe='')}"
        return folder / f"{self.name}{revision}" / self.file


def parse_hub_path(text: str) -> HubFile:
    """Take hf://datasets/USER/NAME[@REVISION]/FILE apart; the revision is main unless said.

    Raises:
        InputError: it is not of that form, or leads out of the dataset.
    """
    found = _FORM.fullmatch(text)
    if found is None or any(part in ("", ".", "..") for part in found["file"].split("/")):
        raise InputError(
            f"{text} is no file of a dataset on the hub; it is written as "
            "hf://datasets/bigcode/the-stack/data/c/train-00000-of-00257.parquet"
        )
    return HubFile(found["name"], found["revision"] or _MAIN, found["file"])


def fetch_hub_file(text: str, folder: Path, report: Report, patience: Patience | None = None) -> Path:
    """Bring the file to `folder`, resumed where an earlier run broke off; one that is there is left alone.

    The server is HF_ENDPOINT's, else huggingface.co; the token HF_TOKEN's, else that of `hf auth login`.

    Raises:
        InputError: there is no such file, or it may not be read; a gated dataset's page is named.
        ResourceError: the network does not hold, or the disk is full.
        OutputError: another download into the folder is running.
    """
    wanted = parse_hub_path(text)
    path = wanted.path_in(folder)
    if path.exists():
        return path
    endpoint = os.environ.get("HF_ENDPOINT", _ADDRESS).rstrip("/")
    page = f"{endpoint}/datasets/{wanted.name}"
    url = f"{page}/resolve/{quote(wanted.revision, safe='')}/{quote(wanted.file)}"
    token = _token()
    with alone_in(path.parent):
        try:
            Fetcher(report, patience, token=token, server="HF_ENDPOINT").fetch(_described(url, token), path)
        except Refused as error:
            raise InputError(_refusal(text, page, error, has_token=token is not None)) from error
    return path


def _described(url: str, token: str | None) -> Remote:
    """The file with its size and SHA-256, where the hub tells them; what it says else, `fetch` will hear."""
    import requests

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = requests.head(url, headers=headers, timeout=30).headers
    except requests.RequestException:
        return Remote(url)
    size, digest = answer.get("X-Linked-Size", ""), answer.get("X-Linked-ETag", "").strip('"')
    checksum = f"sha256:{digest}" if re.fullmatch("[0-9a-f]{64}", digest) else None
    return Remote(url, int(size) if size.isdecimal() else None, checksum)


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _refusal(text: str, page: str, error: Refused, *, has_token: bool) -> str:
    if error.status == 404:
        return (
            f"{text}: there is no such file on the hub (HTTP 404); its files are listed at {page}/tree/main"
        )
    if error.status not in (401, 403):
        return f"{text}: {error}"
    if not has_token:
        remedy = "log in (hf auth login) or set HF_TOKEN to a token of your account"
    else:
        remedy = "the token that was sent is of another account, has expired, or may not read gated datasets"
    return (
        f"{text}: the hub does not give it (HTTP {error.status}); the dataset is gated or private\n"
        f"  accept its terms at {page} with your account; then {remedy}"
    )


@contextmanager
def told_push_failures(kept: str) -> Iterator[None]:
    """What may go wrong while something is uploaded, by one message.

    Args:
        kept: what is not lost by it, the beginning of the message.

    Raises:
        UserError: there is no token, or it does not allow this.
        ResourceError: the hub cannot be reached.
    """
    from httpx2 import HTTPError  # what the hub's client lets through
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(f"{kept}: no token; set HF_TOKEN, or log in: hf auth login") from None
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
