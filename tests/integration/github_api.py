"""An HTTP server on this machine that answers as GitHub's GraphQL search does, over a population of its own.

It reads the words of a search, hands out the first 1,000 results in pages, counts points by the hour, and can be told
to fail in the ways that GitHub is known to.
"""

from __future__ import annotations

import base64
import calendar
import email.utils
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import QuietHandler, serving_here

TOKEN = "ghp_ThisIsNotARealToken0123456789abcdef"
_BAD_GATEWAY = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"


def when(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def text_of(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def node(number: int, language: str, stars: int, created: int, **other: Any) -> dict[str, Any]:
    name = f"org{number % 97}/{language.lower().replace('#', 'sharp')}-{number}"
    return {
        "databaseId": number, "nameWithOwner": name, "url": f"https://github.com/{name}",
        "stargazerCount": stars, "createdAt": text_of(created), "pushedAt": "2021-05-05T05:05:05Z",
        "diskUsage": number % 5000, "isFork": False, "isArchived": number % 50 == 0,
        "licenseInfo": None if number % 5 == 0 else {"spdxId": ("MIT", "Apache-2.0", "NOASSERTION")[number % 3]},
        "primaryLanguage": {"name": language},
        "defaultBranchRef": None if number % 211 == 0 else {"target": {"oid": f"{number:040x}"}},
        **other,
    }  # fmt: skip


def population(languages: dict[str, int], *, ties: int = 0, seed: int = 1) -> list[dict[str, Any]]:
    """So many repositories a language, stars as rare as they are; and `ties` more with exactly 50 stars."""
    chance, nodes = random.Random(seed), []
    first, last = when("2009-01-01T00:00:00Z"), when("2024-12-31T00:00:00Z")
    for language, count in languages.items():
        for _ in range(count):
            stars = int(40 * chance.paretovariate(0.9))
            nodes.append(node(len(nodes) + 1, language, stars, chance.randint(first, last)))
    for _ in range(ties):
        nodes.append(node(len(nodes) + 1, next(iter(languages)), 50, chance.randint(first, last)))
    return nodes


@dataclass
class Api:
    """What there is, what goes wrong, and what was asked.

    Args:
        faults: of the next answers, one each, in order; "" is none.
        chance_of_fault: of each further answer, of any fault in `_FAULTS`.
        points: until the hour is over, which lasts for `hour_seconds`.
    """

    nodes: list[dict[str, Any]]
    faults: list[str] = field(default_factory=list)
    always: str = ""
    chance_of_fault: float = 0.0
    points: int = 1_000_000
    hour_seconds: float = 1.0
    hidden: frozenset[int] = frozenset()
    never_listed: frozenset[int] = frozenset()
    url: str = ""
    seed: int = 0
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    answered: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    tokens: set[str | None] = field(default_factory=set)
    refused: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.left, self.reset = self.points, time.time() + self.hour_seconds
        self.by_stars = sorted(self.nodes, key=lambda entry: (-entry["stargazerCount"], entry["databaseId"]))
        self.created = {entry["databaseId"]: when(entry["createdAt"]) for entry in self.nodes}

    def fault(self) -> str:
        if self.faults:
            return self.faults.pop(0)
        if self.chance_of_fault and self.chance.random() < self.chance_of_fault:
            return self.chance.choice(_FAULTS)
        return self.always

    def spend(self) -> bool:
        """Whether there is a point left for a question."""
        if time.time() >= self.reset:
            self.left, self.reset = self.points, time.time() + self.hour_seconds
        self.left -= 1
        return self.left >= 0

    def matching(self, search: str) -> list[dict[str, Any]]:
        """The results of a search, as GitHub reads its words."""
        language = re.search(r'language:"([^"]+)"', search)
        stars = re.search(r"stars:(\d+)\.\.(\d+|\*)", search)
        created = re.search(r"created:(\S+Z)\.\.(\S+Z)", search)
        pushed = re.search(r"pushed:>=(\d{4}-\d\d-\d\d)", search)
        assert language, search
        assert stars, search
        assert created, search
        assert pushed, search
        assert "fork:false" in search
        low, high = int(stars[1]), 10**9 if stars[2] == "*" else int(stars[2])
        first, last = when(created[1]), when(created[2])
        return [
            entry
            for entry in self.by_stars
            if entry["primaryLanguage"]["name"] == language[1]
            and low <= entry["stargazerCount"] <= high
            and first <= self.created[entry["databaseId"]] <= last
            and entry["pushedAt"][:10] >= pushed[1]
            and not entry["isFork"]
        ]


_FAULTS = (
    "502", "502 json", "garbage", "cut", "drop", "secondary", "429", "throttled body", "resource limits",
    "null data", "null nodes", "incomplete",
)  # fmt: skip


def _handler(api: Api) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["variables"]
            search, first, after = asked["search"], asked["first"], asked["after"]
            api.asked.append((search, after, first))
            api.tokens.add(self.headers["Authorization"])
            if self.headers["Authorization"] != f"bearer {TOKEN}":
                told = {"message": "Bad credentials", "documentation_url": "https://docs.github.com/graphql"}
                return self._send(401, told)
            fault = api.fault()
            if fault in _BROKEN:
                return _BROKEN[fault](self)
            if not api.spend():
                api.refused += 1
                error = {"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}
                reset = str(int(api.reset) + 1)
                return self._send(200, {"errors": [error]}, {"X-RateLimit-Reset": reset})
            body, is_good = self._answer(search, first, after, fault)
            self._send(200, body)
            api.answered[search, after] += is_good
            return None

        def _answer(self, search: str, first: int, after: str | None, fault: str) -> tuple[Any, bool]:
            found = api.matching(search)
            start = int(base64.b64decode(after).decode().partition(":")[2]) if after else 0
            handed = [entry for entry in found[:1000] if entry["databaseId"] not in api.never_listed]
            page: list[dict[str, Any] | None] = list(handed[start : start + first])
            end = start + len(page)
            errors = []
            for at, entry in enumerate(page):
                if entry and entry["databaseId"] in api.hidden:
                    page[at] = None
                    errors.append({
                        "type": "FORBIDDEN", "path": ["search", "nodes", at], "extensions": {"saml_failure": True},
                        "message": "Resource protected by organization SAML enforcement.",
                    })  # fmt: skip
            if fault == "null nodes":
                page = [None if at % 3 == 0 else entry for at, entry in enumerate(page)]
            if fault == "incomplete":
                page = page[: len(page) // 2]
            body = {
                "data": {
                    "rateLimit": {"cost": 1, "remaining": max(0, api.left), "resetAt": text_of(int(api.reset) + 1)},
                    "search": {
                        "repositoryCount": len(found),
                        "pageInfo": {
                            "hasNextPage": end < len(handed),
                            "endCursor": base64.b64encode(f"cursor:{end}".encode()).decode() if page else None,
                        },
                        "nodes": page,
                    },
                }
            }  # fmt: skip
            return (body | {"errors": errors} if errors else body), not fault

        def _send(
            self, status: int, body: Any, headers: dict[str, str] | None = None, cut: bool = False
        ) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

        def drop(self) -> None:
            self.close_connection = True

        def stall(self) -> None:
            time.sleep(2)
            self.close_connection = True

    return Handler


_SECONDARY = {
    "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
    "documentation_url": "https://docs.github.com/graphql/overview/rate-limits",
}
_TIMED_OUT = {
    "data": None,
    "errors": [
        {"message": "Something went wrong while executing your query. This may be the result of a timeout."}
    ],
}
_RESOURCES = {
    "data": {"search": None},
    "errors": [
        {
            "type": "RESOURCE_LIMITS_EXCEEDED",
            "path": ["search"],
            "message": "Resource limits for this query exceeded.",
        }
    ],
}
_UNKNOWN_FIELD = {
    "errors": [{"message": "Field 'x' doesn't exist", "extensions": {"code": "undefinedField"}}],
}
_BROKEN: dict[str, Any] = {
    "502": lambda handler: handler._send(502, _BAD_GATEWAY),
    "502 json": lambda handler: handler._send(502, _TIMED_OUT),
    "garbage": lambda handler: handler._send(200, b"<!DOCTYPE html><title>Unicorn!</title>"),
    "cut": lambda handler: handler._send(200, _TIMED_OUT, None, True),
    "drop": lambda handler: handler.drop(),
    "stall": lambda handler: handler.stall(),
    "secondary": lambda handler: handler._send(403, _SECONDARY, {"Retry-After": "0"}),
    "secondary 1 s": lambda handler: handler._send(403, _SECONDARY, {"Retry-After": "1"}),
    "403 page": lambda handler: handler._send(
        403, b"<h1>Whoa there!</h1>You have exceeded a secondary rate limit."
    ),
    "429": lambda handler: handler._send(
        429, _SECONDARY, {"Retry-After": email.utils.formatdate(time.time(), usegmt=True)}
    ),
    "primary": lambda handler: handler._send(
        403,
        {"message": "API rate limit exceeded for user ID 1."},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()))},
    ),
    "throttled body": lambda handler: handler._send(
        200, {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}]}
    ),
    "resource limits": lambda handler: handler._send(200, _RESOURCES),
    "null data": lambda handler: handler._send(200, {"data": None}),
    "forbidden": lambda handler: handler._send(403, {"message": f"Token {TOKEN} may not do this"}),
    "unknown field": lambda handler: handler._send(200, _UNKNOWN_FIELD),
    "moved": lambda handler: handler._send(301, b"", {"Location": "/elsewhere"}),
}


@contextmanager
def answering(api: Api) -> Iterator[Api]:
    """Serve `api` on the loopback while the block runs."""
    with serving_here(_handler(api)) as address:
        api.url = f"{address}/graphql"
        yield api
