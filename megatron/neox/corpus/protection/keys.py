"""Keys, tokens and passwords in source code: known forms by detect-secrets, others by what they are assigned to.

detect-secrets knows the forms of the services' keys, and reads half a megabyte a second. So one pass of Aho-Corasick
looks for the beginnings of those forms, and detect-secrets sees the surroundings of what it finds alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from math import log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick
    from detect_secrets.plugins.base import RegexBasedDetector

Span = tuple[int, int]
"""From and to, in bytes."""

_BEFORE, _AFTER = 60, 2200  # bytes around a beginning: the longest form has 1024
_MIN_KEY = 16
_FORMS = {
    "aws.AWSKeyDetector": (b"AKIA", b"ABIA", b"ACCA", b"ASIA", b"A3T", b"aws", b"AWS"),
    "azure_storage_key.AzureStorageKeyDetector": (b"AccountKey=",),
    "github_token.GitHubTokenDetector": (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
    "gitlab_token.GitLabTokenDetector": (b"glpat-", b"gldt-", b"glft-", b"glsoat-", b"glrt-", b"GR1348941", b"glptt-",
        b"glcbt-", b"glimt-", b"glagent-", b"gloas-"),
    "npm.NpmDetector": (b"_authToken",),
    "openai.OpenAIDetector": (b"T3BlbkFJ",),
    "pypi_token.PypiTokenDetector": (b"pypi-AgE",),
    "sendgrid.SendGridDetector": (b"SG.",),
    "slack.SlackDetector": (b"xox", b"hooks.slack.com"),
    "square_oauth.SquareOAuthDetector": (b"sq0csp-",),
    "stripe.StripeDetector": (b"k_live_",),
}  # fmt: skip
_WEB_TOKEN = re.compile(rb"(?<![\w\-=.])eyJ[\w\-=]{4,}+\.[\w\-=]{4,}+(?:\.[\w\-=+/]*+)?")
_OTHER_FORMS = re.compile(rb"AIza[0-9A-Za-z_\-]{35}(?![0-9A-Za-z_\-])|github_pat_[0-9A-Za-z_]{36,255}+")
_LOGIN = re.compile(rb"://[^\s:/?#@'\"<>(){}$%]{1,64}+:([^\s:/?#@'\"<>(){}$%]{1,128}+)@")
_BLOCK_START = re.compile(rb"-----BEGIN (?:[A-Z0-9]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(rb"-----END (?:[A-Z0-9]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_BYTES = 16 << 10
_MIN_BLOCK_BYTES = 64  # a parser's two constants on one line hold no key

_NO_PASSWORDS = frozenset(
    b"password passwd passwort pass passw0rd pw pwd secret user username token example".split()
)

_WORDS = (
    b"secret", b"passw", b"pwd", b"token", b"credential", b"apikey", b"api_key", b"api-key", b"accesskey",
    b"access_key", b"access-key", b"privatekey", b"private_key", b"private-key", b"authkey", b"auth_key", b"auth-key",
)  # fmt: skip
_WITHIN = re.compile(rb"[0-9A-Za-z+/=_]")
_ASSIGNED = re.compile(
    rb"[\w\-]{0,40}+[\"']?\]?[ \t]{0,8}+(?:=>|:=|=|:)[ \t]{0,8}+[rbuRBU]?"
    rb"([\"'`])([0-9A-Za-z+/=_.~!@#$%^&*\-]{16,512}+)\1"
)
_MIN_BITS = 3.5  # of entropy a character: words have less
_HEX = re.compile(rb"[0-9a-fA-F]+\Z")
_MIN_HEX_BITS = 3.0  # detect-secrets' own limit
_PATH = re.compile(rb"(?:[A-Za-z_][A-Za-z_\-]*[./]?)+\Z")


def find_keys(data: bytes) -> Iterator[Span]:
    """Places of keys, tokens and passwords; they may overlap."""
    yield from _known_forms(data)
    yield from _web_tokens(data)
    yield from (match.span() for match in _OTHER_FORMS.finditer(data))
    yield from (match.span(1) for match in _LOGIN.finditer(data) if match[1].lower() not in _NO_PASSWORDS)
    yield from _blocks(data)
    yield from _assigned(data)


def _known_forms(data: bytes) -> Iterator[Span]:
    automaton, names = _automaton()
    seen_until: dict[str, int] = {}
    for pattern, start, _ in automaton.find_matches_as_indexes(data):
        name = names[pattern]
        if start < seen_until.get(name, 0):
            continue
        first = max(data.rfind(b"\n", 0, start) + 1, start - _BEFORE)
        end = data.find(b"\n", start, start + _AFTER)
        # Half of what was looked at is done with: the longest form is shorter than the other half.
        seen_until[name] = start + _AFTER // 2 if end < 0 else end
        around = data[first : start + _AFTER if end < 0 else end].decode("latin-1")  # a character a byte
        for form in _forms(name):
            for match in form.finditer(around):
                yield from _checked(data, first, match)


def _checked(data: bytes, first: int, match: re.Match[str]) -> Iterator[Span]:
    """A match at `first` and beyond, unless it is a part of something longer, such as a file in base64."""
    # What some forms have in a group is the key; in others the group is its first letters.
    group = 1 if match.re.groups and len(match[1] or "") >= _MIN_KEY else 0
    start, end = (first + position for position in match.span(group))
    within = _WITHIN.match(data[start - 1 : start]) and _WITHIN.match(data[end : end + 1])
    if not within and not _is_placeholder(match[group]):
        yield start, end


def _web_tokens(data: bytes) -> Iterator[Span]:
    for match in _WEB_TOKEN.finditer(data):
        if _is_web_token(match[0].decode("ascii")):
            yield match.span()


def _is_web_token(text: str) -> bool:
    from detect_secrets.plugins.jwt import JwtTokenDetector

    try:
        return JwtTokenDetector.is_formally_valid(text)
    except RecursionError:  # brackets in brackets, made to this end
        return False


def _blocks(data: bytes) -> Iterator[Span]:
    for start in _BLOCK_START.finditer(data):
        end = _BLOCK_END.search(data, start.end(), start.end() + _BLOCK_BYTES)
        if end is not None and end.start() - start.end() >= _MIN_BLOCK_BYTES:
            yield start.start(), end.end()


def _assigned(data: bytes) -> Iterator[Span]:
    for _, _, end in _words().find_matches_as_indexes(data.lower()):
        match = _ASSIGNED.match(data, end)
        if match is not None and _is_random(match[2]):
            yield match.span(2)


def _is_random(value: bytes) -> bool:
    """Whether a quoted value is unlike words, paths and names."""
    if not (re.search(rb"[0-9]", value) and re.search(rb"[A-Za-z]", value)) or _PATH.match(value):
        return False
    limit = _MIN_HEX_BITS if _HEX.match(value) else _MIN_BITS
    text = value.decode("ascii")
    return _entropy(text) >= limit and not _is_placeholder(text)


def _entropy(text: str) -> float:
    """Bits a character."""
    return sum(-count / len(text) * log2(count / len(text)) for count in Counter(text).values())


def _is_placeholder(text: str) -> bool:
    """Whether detect-secrets takes a value for a template's hole or a row of keys, as `${SECRET}` and `abcdef...`."""
    from detect_secrets.filters.heuristic import is_sequential_string, is_templated_secret

    return is_templated_secret(text) or is_sequential_string(text)


@lru_cache(maxsize=1)
def _automaton() -> tuple[BytesAhoCorasick, list[str]]:
    from ahocorasick_rs import BytesAhoCorasick

    pairs = [(pattern, name) for name, patterns in _FORMS.items() for pattern in patterns]
    return BytesAhoCorasick([pattern for pattern, _ in pairs]), [name for _, name in pairs]


@lru_cache(maxsize=1)
def _words() -> BytesAhoCorasick:
    from ahocorasick_rs import BytesAhoCorasick

    return BytesAhoCorasick(list(_WORDS))


@lru_cache(maxsize=len(_FORMS))
def _forms(name: str) -> list[re.Pattern[str]]:
    module, _, kind = name.partition(".")
    detector: RegexBasedDetector = getattr(import_module(f"detect_secrets.plugins.{module}"), kind)()
    return list(detector.denylist)
