"""Log-probabilities of a text's own tokens from `POST BASE_URL/completions` with `echo` and `logprobs`.

The protocol is OpenAI's: `choices[0].logprobs` holds `tokens`, `token_logprobs` (natural logarithms, null for the
first, which nothing stands before) and `text_offset` (characters from the beginning of the prompt).
"""

from __future__ import annotations

import ipaddress
import logging
import math
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from pydantic import BaseModel, ValidationError
from requests.auth import AuthBase
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from megatron.neox.downloads.fetch import Patience
from megatron.neox.errors import ConfigError, InputError, ResourceError, UserError

log = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"

_LONGEST_WAIT_SECONDS = 60.0
_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_TOO_LONG = re.compile(r"context|too long|too many tokens|maximum.{0,20}(length|tokens)", re.IGNORECASE)


class Token(NamedTuple):
    """A token of a prompt: its characters [start, end), and log p in nats, none for a prompt's first."""

    start: int
    end: int
    logprob: float | None


class PromptTooLong(Exception):
    """The server says that the prompt does not fit its model."""


class Abandoned(Exception):
    """The work was given up elsewhere while this waited."""


class _Logprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    text_offset: list[int] | None = None


class _Choice(BaseModel):
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Key(AuthBase):
    """The key in the header; an authentication object keeps ~/.netrc out, and shows nothing of itself."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def hide(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self._key, "[key]") if self._key else text


class Endpoint:
    """One model of a server; used by several threads at once.

    Args:
        base_url: what stands before `/completions`.
        key: sent as a bearer token; a server on this machine needs none.

    Raises:
        ConfigError: the address is none, or holds a password; the key is missing or none, or it would go over the
            network in the clear.
    """

    def __init__(
        self, base_url: str, model: str, *, key: str | None, patience: Patience | None = None
    ) -> None:
        key = (key or "").strip()  # files that hold a key end with a line end
        _check_address(base_url, has_key=bool(key))
        _check_key(key)
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._url = f"{self.base_url}/completions"
        self._patience = patience or Patience()
        self._auth = _Key(key)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._abandoned = threading.Event()
        self.max_tokens = 0
        """New tokens that each request asks for: 0, or 1 for servers that refuse 0."""

    def abandon(self) -> None:
        """Let whoever waits for another attempt give up."""
        self._abandoned.set()

    def echo(self, prompt: str) -> list[Token]:
        """The tokens of a prompt.

        Raises:
            PromptTooLong: it does not fit the model.
            UserError: the server refuses the key, the model or the request, or is no such endpoint.
            ResourceError: it cannot be reached, or is not well for longer than our patience lasts.
        """
        asked = self.max_tokens
        body = {
            "model": self.model, "prompt": prompt, "max_tokens": asked, "echo": True, "logprobs": 0, "temperature": 0,
        }  # fmt: skip
        response = self._patiently(body)
        if response.status_code == 200:
            return self._tokens(response, prompt)
        message = self._message(response)
        is_about_length = response.status_code in (400, 413, 422)
        if is_about_length and asked == 0 and "max_tokens" in message and not re.search("context", message):
            with self._lock:
                if self.max_tokens == 0:
                    log.warning(
                        "%s refuses max_tokens 0 (%s); it is asked for 1, and that token is dropped",
                        self._url,
                        message,
                    )
                    self.max_tokens = 1
            return self.echo(prompt)
        if is_about_length and (response.status_code == 413 or _TOO_LONG.search(message)):
            raise PromptTooLong(message)
        raise self._refusal(response, message)

    # --- one request ------------------------------------------------------------------------------------------

    def _patiently(self, body: Mapping[str, Any]) -> requests.Response:
        """An answer that another attempt would not mend, its body read."""
        patience = self._patience
        for attempt in range(1, patience.num_retries + 2):
            wait = 0.0
            try:
                response = self._session().post(
                    self._url,
                    json=body,
                    auth=self._auth,
                    timeout=patience.timeout_seconds,
                    allow_redirects=False,
                )
                if response.status_code not in _PASSING_STATUS or self._is_final(response):
                    return response
                problem = f"HTTP {response.status_code} ({self._message(response)})"
                wait = _retry_after(response)
            except (
                requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError,
                requests.exceptions.ContentDecodingError,
            ) as error:  # fmt: skip
                problem = f"the connection failed ({type(error).__name__})"
            except requests.RequestException as error:
                raise InputError(f"{self._url} cannot be asked: {self._auth.hide(str(error))}") from None
            if attempt > patience.num_retries:
                raise ResourceError(
                    f"{self._url}: {problem}; given up at attempt {attempt}\n  what was scored is kept, and the same "
                    "command goes on; fewer --workers ask less at a time"
                )
            wait = min(max(wait, patience.wait_seconds * 2 ** (attempt - 1)), _LONGEST_WAIT_SECONDS)
            log.warning("%s; retry %d of %d in %.1f s", problem, attempt, patience.num_retries, wait)
            if self._abandoned.wait(wait):
                raise Abandoned
        raise AssertionError("the last attempt returns or raises")

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.headers["User-Agent"] = "megatron-neox"
        return self._local.session

    def _is_final(self, response: requests.Response) -> bool:
        """Whether 429 means that no money is left, which no waiting mends."""
        return response.status_code == 429 and "insufficient_quota" in response.text

    def _message(self, response: requests.Response) -> str:
        """What the server says of its refusal, in one short line without the key."""
        try:
            said = response.json()
            said = said.get("error", said) if isinstance(said, dict) else said
            said = said.get("message", said) if isinstance(said, dict) else said
        except ValueError:
            said = response.text
        return self._auth.hide(" ".join(str(said).split()))[:300] or response.reason or "no reason given"

    def _refusal(self, response: requests.Response, message: str) -> UserError:
        status = response.status_code
        remedy = {
            401: f"the key is not taken; {KEY_VARIABLE} must hold one of this server",
            403: f"the key in {KEY_VARIABLE} does not allow this",
            404: "is --base-url what stands before /completions, and --model a name that it knows?",
            405: "is --base-url what stands before /completions?",
            429: "the account has no money left; what was scored is kept, and the same command goes on",
        }.get(status, "the server refuses the request")
        if 300 <= status < 400:
            remedy = (
                f"it leads to {response.headers.get('Location', 'nowhere')}, and is not followed; give that"
            )
        return UserError(f"{self._url}: HTTP {status}: {message}\n  {remedy}")

    # --- one answer -------------------------------------------------------------------------------------------

    def _tokens(self, response: requests.Response, prompt: str) -> list[Token]:
        try:
            answer = _Completion.model_validate_json(response.content)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the answer"
            begin = self._auth.hide(response.text[:60])
            raise self._useless(f"{where}: {fault['msg']}; it begins {begin!r}") from None
        logprobs = answer.choices[0].logprobs if answer.choices else None
        if logprobs is None or not logprobs.tokens:
            raise self._useless("choices[0].logprobs is missing")
        if len(logprobs.token_logprobs) != len(logprobs.tokens):
            raise self._useless("tokens and token_logprobs are not of one length")
        if not logprobs.text_offset and not "".join(logprobs.tokens).startswith(prompt):
            raise self._useless("text_offset is missing, and the tokens do not spell the prompt")
        offsets = logprobs.text_offset or _offsets(logprobs.tokens)
        count = sum(offset < len(prompt) for offset in offsets)  # the others were generated
        if answer.usage is not None:
            count = min(count, answer.usage.prompt_tokens)
        is_echo = len(offsets) == len(logprobs.tokens) and offsets[0] == 0 and offsets == sorted(offsets)
        is_whole = answer.usage is None or answer.usage.prompt_tokens <= len(offsets)
        if not is_echo or not is_whole or not _begins(prompt, logprobs.tokens[0]):
            raise self._useless("the tokens are not those of the prompt; it must honour echo")
        ends = [*offsets[1:count], len(prompt)]
        values = logprobs.token_logprobs[:count]
        if any(value is None or not math.isfinite(value) for value in values[1:]):
            raise self._useless("token_logprobs holds what is no number, beyond the first token")
        return [Token(start, end, value) for start, end, value in zip(offsets, ends, values)]

    def _useless(self, what: str) -> InputError:
        return InputError(
            f"{self._url} gives no log-probabilities of the prompt: {what}\n"
            "  it takes a completions endpoint that answers echo and logprobs as OpenAI's did"
        )


def _check_key(key: str) -> None:
    """Refuse what cannot stand in a header, for http.client would show it."""
    if not (key.isascii() and key.isprintable()):
        raise ConfigError([f"{KEY_VARIABLE} is no key: it holds characters that no key has"])


def _check_address(base_url: str, *, has_key: bool) -> None:
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        is_address = False
    if not is_address:
        raise ConfigError([f"--base-url {base_url} is no address; it is like https://api.openai.com/v1"])
    parts = urlsplit(base_url)
    assert parts.hostname is not None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            [
                "--base-url holds more than an address, and is written to the results: a key belongs into "
                f"{KEY_VARIABLE}, and neither a user, a password nor what follows ? or # is taken"
            ]
        )
    if _is_loopback(parts.hostname):
        return
    if not has_key:
        raise ConfigError(
            [f"{KEY_VARIABLE} is not set; {parts.hostname} needs a key (a server on this machine does not)"]
        )
    if parts.scheme != "https":
        raise ConfigError(
            [f"--base-url {base_url} is not https: the key would go over the network in the clear"]
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(response: requests.Response) -> float:
    """Seconds that the server asks to wait; 0 where it does not say."""
    try:
        return max(0.0, Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except InvalidHeader:
        return 0.0


def _offsets(tokens: Sequence[str]) -> list[int]:
    """Where tokens begin, by their lengths, for servers that do not say."""
    places, place = [], 0
    for token in tokens:
        places.append(place)
        place += len(token)
    return places


def _begins(prompt: str, token: str) -> bool:
    """Whether a prompt can begin with a token, of which the server may show bytes that are no text as it likes."""
    return prompt.startswith(token) or token.startswith("bytes:") or "\ufffd" in token
