"""GitHub's GraphQL search, asked until it answers.

Limits as documented under "Rate limits and query limits for the GraphQL API": 5,000 points an hour, told in every
answer; secondary limits as status 403 or 429 with Retry-After, or without, where a minute and then twice as long each
time is asked for. A search that takes too long ends in 502 or in an error beside `data: null`; a smaller page helps.
"""

from __future__ import annotations

import calendar
import email.utils
import json
import logging
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

import requests
import requests.auth

from megatron.neox.downloads.fetch import Patience, innermost, retry_after
from megatron.neox.errors import InputError, ResourceError

log = logging.getLogger(__name__)

API_URL = "https://api.github.com/graphql"

_QUERY = """query ($search: String!, $first: Int!, $after: String) {
  rateLimit { cost remaining resetAt }
  search(query: $search, type: REPOSITORY, first: $first, after: $after) {
    repositoryCount
    pageInfo { hasNextPage endCursor }
    nodes { ... on Repository {
      databaseId nameWithOwner url stargazerCount createdAt pushedAt diskUsage isFork isArchived
      licenseInfo { spdxId } primaryLanguage { name } defaultBranchRef { target { oid } }
    } }
  }
}"""
_LARGEST_PAGE, _SMALLEST_PAGE = 100, 10
_LONGEST_BACKOFF_SECONDS = 60.0
_THROTTLED_SECONDS = 60.0  # where a secondary limit does not say how long
_LONGEST_LIMIT_SECONDS = 3900.0  # limits are by the hour


@dataclass(frozen=True)
class Page:
    """An answer: how many match in all, those of this page, and where the next one begins.

    `num_hidden` are results that the token may not see, by the rules of an organisation.
    """

    total: int
    nodes: list[dict[str, Any]]
    num_hidden: int
    following: str | None


class _Passing(Exception):
    """A failure that may be gone next time; `is_limit` ones wait for `wait_seconds` and not by our own backoff."""

    def __init__(self, message: str, wait_seconds: float = 0.0, *, is_limit: bool = False) -> None:
        super().__init__(message)
        self.wait_seconds, self.is_limit = wait_seconds, is_limit


class _Token(requests.auth.AuthBase):
    """Given as such, since requests lets a ~/.netrc replace a header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"bearer {self._token}"
        return request


class GitHub:
    """Asks one question at a time, which is what GitHub asks of its users."""

    def __init__(
        self,
        token: str,
        *,
        api_url: str = API_URL,
        patience: Patience | None = None,
        throttled_seconds: float = _THROTTLED_SECONDS,
    ) -> None:
        """Check what can be checked without a question.

        Args:
            throttled_seconds: the first wait at a secondary limit that does not say how long.

        Raises:
            InputError: the token could not be one, or would travel unencrypted.
        """
        if not (token.isascii() and token.isprintable() and " " not in token and token):
            raise InputError("the token holds characters that no token has (it is not shown here)")
        parts = urllib.parse.urlsplit(api_url)
        is_here = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_here):
            raise InputError(f"--api-url {api_url}: the token is only sent over https")
        self._url, self._token, self._patience = api_url, token, patience or Patience()
        self._throttled_seconds = throttled_seconds
        self._session = requests.Session()
        self._session.auth = _Token(token)
        self._session.headers["User-Agent"] = "megatron-neox"
        self._page_size = _LARGEST_PAGE
        self._not_before = 0.0

    def page(self, search: str, after: str | None) -> Page:
        """One page of a search.

        Raises:
            InputError: the token or the question is refused.
            ResourceError: there is no answer after all retries.
        """
        failures, patience = 0, self._patience
        self._page_size = min(_LARGEST_PAGE, 2 * self._page_size)
        while True:
            try:
                self._wait_for_limit()
                return self._ask(search, after)
            except _Passing as error:
                failures += 1
                if failures > patience.num_retries:
                    raise ResourceError(
                        f"{self._url}: {error}; given up at attempt {failures}\n"
                        "  what was answered is kept, and the same command goes on"
                    ) from error
                if not error.is_limit:
                    self._page_size = max(_SMALLEST_PAGE, self._page_size // 2)
                wait = self._seconds_after(error, failures)
                log.warning("%s; retry %d of %d in %.1f s", error, failures, patience.num_retries, wait)
                time.sleep(wait)

    def _seconds_after(self, error: _Passing, failures: int) -> float:
        """How long to wait after so many failures in a row, the last of which is `error`."""
        if error.is_limit:
            told = error.wait_seconds or self._throttled_seconds * 2 ** (failures - 1)
            return min(told, _LONGEST_LIMIT_SECONDS)
        backoff = min(self._patience.wait_seconds * 2 ** (failures - 1), _LONGEST_BACKOFF_SECONDS)
        return max(backoff, min(error.wait_seconds, _LONGEST_LIMIT_SECONDS))

    def _wait_for_limit(self) -> None:
        wait = self._not_before - time.monotonic()
        if wait > 0:
            log.info("the hour's points are used up; going on in %.0f s", wait)
            time.sleep(wait)

    def _ask(self, search: str, after: str | None) -> Page:
        asked = {"query": _QUERY, "variables": {"search": search, "first": self._page_size, "after": after}}
        try:
            response = self._session.post(
                self._url, json=asked, timeout=self._patience.timeout_seconds, allow_redirects=False
            )
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise InputError(
                    f"{self._url}: the certificate is not trusted ({innermost(error)})"
                ) from error
            raise _Passing(self._hushed(innermost(error))) from error
        except requests.RequestException as error:
            raise InputError(f"{self._url} cannot be asked: {self._hushed(str(error))}") from error
        self._refuse(response)
        try:
            body = response.json()
        except ValueError as error:
            raise _Passing(f"{response.status_code}, and no JSON") from error
        return self._page_of(body, response)

    def _refuse(self, response: requests.Response) -> None:
        """Raise what a status other than 200 means."""
        status = response.status_code
        if status == 200:
            return
        told = self._hushed(_message(response))
        if status == 401:
            raise InputError(
                f"{self._url} refuses the token (401 {told}); is it expired? GITHUB_TOKEN or GH_TOKEN gives another"
            )
        if status in (403, 429):
            wait = retry_after(response)
            if response.headers.get("X-RateLimit-Remaining") == "0":
                reset = response.headers.get("X-RateLimit-Reset", "")
                wait = max(wait, float(reset) - _server_time(response) + 1 if reset.isdecimal() else 0.0)
            # The page for browsers, which comes now and then, says so in HTML.
            if wait or status == 429 or b"rate limit" in response.content.lower():
                raise _Passing(f"{status} {told}", wait, is_limit=True)
        if status >= 500 or status == 408:
            raise _Passing(f"{status} {told}", retry_after(response))
        raise InputError(f"{self._url}: {status} {told}; is --api-url the address of a GraphQL API?")

    def _page_of(self, answer: Any, response: requests.Response) -> Page:
        body: dict[str, Any] = answer if isinstance(answer, dict) else {}
        held = body.get("data")
        data: dict[str, Any] = held if isinstance(held, dict) else {}
        self._note_limit(data.get("rateLimit"), response)
        errors = [error for error in body.get("errors") or [] if isinstance(error, dict)]
        found: Any = data.get("search")
        hidden = [error for error in errors if error.get("type") in ("FORBIDDEN", "NOT_FOUND")]
        for error in errors:
            if error not in hidden or not found:
                self._raise_error(error, response)
        try:
            nodes = [node for node in found["nodes"] if isinstance(node, dict) and node.get("nameWithOwner")]
            info, total = found["pageInfo"], int(found["repositoryCount"])
            following = info["endCursor"] if info["hasNextPage"] and found["nodes"] else None
        except (KeyError, TypeError, ValueError) as error:
            raise _Passing("an answer without results") from error
        num_hidden = min(len(hidden), len(found["nodes"]) - len(nodes))
        return Page(total, nodes, num_hidden, following if following != "" else None)

    def _raise_error(self, error: dict[str, Any], response: requests.Response) -> None:
        told = self._hushed(str(error.get("message")))
        if error.get("type") == "RATE_LIMITED" or "rate limit" in told.lower():
            reset = response.headers.get("X-RateLimit-Reset", "")
            wait = max(1.0, float(reset) - _server_time(response) + 1) if reset.isdecimal() else 0.0
            raise _Passing(told, wait, is_limit=True)
        if isinstance(error.get("extensions"), dict) and "code" in error["extensions"]:
            raise InputError(f"{self._url} does not understand the question: {told}")
        raise _Passing(told)

    def _note_limit(self, limit: Any, response: requests.Response) -> None:
        """Remember when to go on, where the next question would cost more than is left."""
        try:
            is_spent = int(limit["remaining"]) < max(1, int(limit["cost"]))
            reset = calendar.timegm(time.strptime(limit["resetAt"], "%Y-%m-%dT%H:%M:%SZ"))
        except (KeyError, TypeError, ValueError):
            return  # a server without limits says null
        if is_spent:
            wait = min(max(0.0, reset - _server_time(response) + 1), _LONGEST_LIMIT_SECONDS)
            self._not_before = time.monotonic() + wait

    def _hushed(self, text: str) -> str:
        """A text of the server or of a library, never with the token in it."""
        return text.replace(self._token, "[token]")[:300]


def _message(response: requests.Response) -> str:
    try:
        body = json.loads(response.content)
    except ValueError:
        return str(response.reason)
    if isinstance(body, dict):
        errors = body.get("errors")
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            body = errors[0]
        return str(body.get("message", response.reason))
    return str(response.reason)


def _server_time(response: requests.Response) -> float:
    """Now by the server's clock, which its limits are told in; by ours where it does not say."""
    try:
        return email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()
