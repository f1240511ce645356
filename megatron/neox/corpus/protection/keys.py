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
# Forms that detect-secrets does not look for by pattern, by how they begin: Google's, GitHub's newer ones, Hugging
# Face's, Anthropic's, and web tokens.
_OTHER_FORMS = {
    b"AIza": re.compile(rb"AIza[0-9A-Za-z_\-]{35}(?![0-9A-Za-z_\-])"),
    b"github_pat_": re.compile(rb"github_pat_[0-9A-Za-z_]{36,255}+"),
    b"hf_": re.compile(rb"(?<![0-9A-Za-z_])hf_[0-9A-Za-z]{34}(?![0-9A-Za-z_])"),
    b"sk-ant-": re.compile(rb"sk-ant-[0-9A-Za-z_\-]{32,255}+"),
    b"eyJ": _WEB_TOKEN,
}
_LOGIN = re.compile(rb"://[^\s:/?#@'\"<>(){}$%]{1,64}+:([^\s:/?#@'\"<>(){}$%]{4,128}+)@([\w.\-]{0,255}+)")
# RFC 2606 reserves these. A host without a dot, such as localhost or db, is nobody's in particular either.
_EXAMPLE_HOST = re.compile(rb"(?:.*\.)?(?:example\.(?:com|net|org)|example|test|invalid)\Z", re.IGNORECASE)
_WITH_DIGIT = re.compile(rb"(?=.*[A-Za-z])(?=.*[0-9]).{8,}")
_BLOCK_START = re.compile(rb"-----BEGIN (?:[A-Z0-9]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(rb"-----END (?:[A-Z0-9]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_BYTES = 16 << 10
_MIN_BLOCK_BYTES = 64  # a parser's two constants on one line hold no key
_MIN_BLOCK_LETTERS = 10  # different ones; XXXX... in an example has fewer

_NO_PASSWORDS = frozenset(
    b"password passwd passwort pass passw0rd pw pwd secret user username token example x-oauth-basic".split()
)

_WORDS = (
    b"secret", b"passw", b"pwd", b"token", b"credential", b"apikey", b"api_key", b"api-key", b"accesskey",
    b"access_key", b"access-key", b"privatekey", b"private_key", b"private-key", b"authkey", b"auth_key", b"auth-key",
)  # fmt: skip
_WITHIN = re.compile(rb"[0-9A-Za-z+/=_]")
_ASSIGNED = re.compile(
    rb"(?P<name>[\w\-]{0,40}+)[\"']?\]?[ \t]{0,8}+(?:=>|:=|=|:)[ \t]{0,8}+[rbuRBU]?"
    rb"(?P<quote>[\"'`])(?P<value>[0-9A-Za-z+/=_.~!@#$%^&*\-]{16,512}+)(?P=quote)"
)
_NAME_END = re.compile(rb"[\w\-]*+\Z")
_TOKENIZER = re.compile(rb"i[sz][aei]", re.IGNORECASE)
# As shells and .env files have it, alone on its line: NAME=value, the name in capitals.
_UNQUOTED = re.compile(
    rb"(?P<name>[A-Z0-9_]{0,40}+)=(?P<value>[0-9A-Za-z+/=_.\-]{16,512}+)[ \t]{0,8}+(?=\r?\n|\Z)"
)
_LONGEST_NAME = 100
_NAME_BEGINS = re.compile(rb"[ \t]*(?:export[ \t]+)?[A-Z0-9_]{1,60}\Z")
_MIN_BITS = 3.5  # of entropy a character: words have less
_HEX = re.compile(rb"[0-9a-fA-F]+\Z")
_MIN_HEX_BITS = 3.0  # detect-secrets' own limit
_PATH = re.compile(rb"(?:[A-Za-z_][A-Za-z_\-]*[./]?)+\Z|(?=.*/)[\w\-./]+\.[A-Za-z]{1,4}\Z")


def find_keys(data: bytes) -> Iterator[Span]:
    """Places of keys, tokens and passwords; they may overlap."""
    yield from _known_forms(data)
    yield from (match.span(1) for match in _LOGIN.finditer(data) if _is_password(match[1], match[2]))
    yield from _blocks(data)
    yield from _assigned(data)


def _known_forms(data: bytes) -> Iterator[Span]:
    automaton, names = _automaton()
    seen_until: dict[str, int] = {}
    for pattern, start, _ in automaton.find_matches_as_indexes(data):
        name = names[pattern]
        if isinstance(name, re.Pattern):
            match = name.match(data, start)
            if match and (name is not _WEB_TOKEN or _is_web_token(match[0].decode("ascii"))):
                yield match.span()
            continue
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


def _is_web_token(text: str) -> bool:
    from detect_secrets.plugins.jwt import JwtTokenDetector

    try:
        return JwtTokenDetector.is_formally_valid(text)
    except RecursionError:  # brackets in brackets, made to this end
        return False


def _is_password(text: bytes, host: bytes) -> bool:
    """Whether what stands between `://user:` and `@host` opens something: `scott:tiger@localhost` is an example."""
    is_masked = not any(map(str.isalnum, text.decode("latin-1")))
    if is_masked or text.lower() in _NO_PASSWORDS or _EXAMPLE_HOST.match(host):
        return False
    return b"." in host or _WITH_DIGIT.match(text) is not None


def _blocks(data: bytes) -> Iterator[Span]:
    for start in _BLOCK_START.finditer(data):
        end = _BLOCK_END.search(data, start.end(), start.end() + _BLOCK_BYTES)
        body = data[start.end() : end.start()] if end is not None else b""
        if end is not None and len(body) >= _MIN_BLOCK_BYTES and len({*body}) >= _MIN_BLOCK_LETTERS:
            yield start.start(), end.end()


def _assigned(data: bytes) -> Iterator[Span]:
    for _, _, end in _words().find_matches_as_indexes(data.lower()):
        match = _ASSIGNED.match(data, end) or _assigned_unquoted(data, end)
        if match is not None and _is_secret(data, end, match["name"]) and _is_random(match["value"]):
            yield match.span("value")


def _is_secret(data: bytes, end: int, rest: bytes) -> bool:
    """Whether a name that has a word of `_WORDS` before `end`, and `rest` behind, is that of a secret.

    An id, such as publicKeyCredentialId, says which one it is and opens nothing; a tokenizer is not a token's.
    """
    before = _NAME_END.search(data, max(0, end - _LONGEST_NAME), end)
    name = ((before[0] if before else b"") + rest).lower()
    return not (name.endswith(b"id") or b"public" in name or _TOKENIZER.match(rest))


def _assigned_unquoted(data: bytes, end: int) -> re.Match[bytes] | None:
    """What is assigned where a word of `_WORDS` ends, on a line that begins with the name."""
    match = _UNQUOTED.match(data, end)
    line = data[max(data.rfind(b"\n", 0, end) + 1, end - _LONGEST_NAME) : end]
    return match if match is not None and _NAME_BEGINS.match(line) else None


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
def _automaton() -> tuple[BytesAhoCorasick, list[str | re.Pattern[bytes]]]:
    """Finds how forms begin; with each beginning the detector's name, or the form itself."""
    from ahocorasick_rs import BytesAhoCorasick

    pairs: list[tuple[bytes, str | re.Pattern[bytes]]] = [*_OTHER_FORMS.items()]
    pairs += [(pattern, name) for name, patterns in _FORMS.items() for pattern in patterns]
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
