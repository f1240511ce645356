"""What tells of people in source code: e-mail addresses, addresses of machines, names of authors.

Each rule looks at a bounded neighbourhood of a character that it needs, so that no input takes longer than its length.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from itertools import pairwise

Span = tuple[int, int]

_AT = re.compile(rb"@(?=[A-Za-z0-9])")
_LOCAL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}\Z")
_DOMAIN = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9_\-])"
)
# image@2x.png is a picture, and git@host:path an address of a repository.
_NO_DOMAINS = frozenset(
    b"png jpg jpeg gif svg webp ico pdf js ts css html htm json xml py rb php java".split()
)
_OF_A_MACHINE = re.compile(
    rb"://(?:[^\s:/?#@]{1,64}:)?\Z"
)  # https://user@host and https://user:password@host
_EXAMPLE_DOMAIN = re.compile(rb"(?:.*\.)?example\.(?:com|net|org)\Z", re.IGNORECASE)  # RFC 2606: nobody's
# Beginning with the character that is rare makes the search ten times faster.
_IPV4_REST = re.compile(rb"\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w\-]|\.\w)")
_IPV4_FIRST = re.compile(rb"(?:\A|[^\w.\-])(\d{1,3})\Z")
_IPV6_REST = re.compile(rb":(?=(?:[0-9A-Fa-f]{0,4}:){2})")
_IPV6 = re.compile(rb"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION = re.compile(rb"(?i:version|assembly|release|section|rfc|\$id:)")
_NETWORK = re.compile(rb"(?i:dns|server|host|\bip\b|ipv4|addr)")
_CONTEXT = 80  # bytes of the line before an address
_PUBLIC_DNS = frozenset(
    map(ipaddress.ip_address, (
        "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
        "2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe",
        "2620:fe::9", "2620:119:35::35", "2620:119:53::53",
    ))
)  # fmt: skip
# X.500's attributes and certificate extensions, as in "2.5.4.41"; real addresses there are few.
_OBJECT_IDENTIFIERS = tuple(map(ipaddress.IPv4Network, ("2.5.4.0/24", "2.5.29.0/24")))
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
_AUTHOR = re.compile(rb"@author:?[ \t]{1,8}+([A-Z][\w.'\-]{0,40}+(?: [A-Z][\w.'\-]{0,40}+){1,3})")


def find_emails(data: bytes) -> Iterator[Span]:
    """E-mail addresses; `git@`, what ends like a file's name, and whoever is at example.com, .net and .org is none."""
    position = 0
    for at in _AT.finditer(data):
        local = _LOCAL.search(data[max(position, at.start() - 64) : at.start()])
        local = local and _without_escape(local[0], data[at.start() - len(local[0]) - 1 : at.start()])
        if not local:
            continue
        domain = _DOMAIN.match(data, at.end(), at.end() + 255)
        if domain is None or domain[1].lower() in _NO_DOMAINS or local == b"git":
            continue
        if _EXAMPLE_DOMAIN.match(domain[0]):
            continue
        start = at.start() - len(local)
        if _OF_A_MACHINE.search(data, max(0, start - 70), start):
            continue
        position = domain.end()
        yield start, position


def _without_escape(local: bytes, with_byte_before: bytes) -> bytes:
    r"""The part before the `@`, where `\n`, `\r` or `\t` of a string stands before it without its letter."""
    is_escaped = with_byte_before[:1] == b"\\" and local[:1] in (b"n", b"r", b"t")
    return local[1:].lstrip(b"._%+-") if is_escaped else local


def find_addresses(data: bytes) -> Iterator[Span]:
    """Public addresses of machines, IPv4 and IPv6.

    Kept are private, local, reserved and documentation addresses and the name servers of four public services; and,
    of IPv4, four numbers that are equal or count up or down by one, object identifiers of X.500, what stands behind
    "version", "assembly", "release", "section", "rfc" or "$Id:" on its line, and four numbers below 32 unless dns,
    server, host, ip or addr stands before them. Of IPv6, 2000::/3 alone is public, written in four groups or more.
    """
    for rest in _IPV4_REST.finditer(data):
        first = _IPV4_FIRST.search(data[max(0, rest.start() - 4) : rest.start()])
        if first is not None:
            start = rest.start() - len(first[1])
            if _is_public_ipv4((first[1] + rest[0]).decode(), _before(data, start)):
                yield start, rest.end()
    for colon in _IPV6_REST.finditer(data):
        match = _IPV6.match(data, colon.start() - 4) if colon.start() >= 4 else None
        if match is not None and _is_public_ipv6(match[0].decode()):
            yield match.span()


def find_names(data: bytes) -> Iterator[Span]:
    """Names of people behind `@author`; others are not looked for."""
    for match in _AUTHOR.finditer(data):
        yield match.span(1)


def _before(data: bytes, position: int) -> bytes:
    start = max(data.rfind(b"\n", 0, position) + 1, position - _CONTEXT)
    return data[start:position]


def _is_public_ipv4(text: str, before: bytes) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:  # a number over 255, or one that begins with 0
        return False
    if not address.is_global or address.is_multicast or address in _PUBLIC_DNS or _VERSION.search(before):
        return False
    if any(address in network for network in _OBJECT_IDENTIFIERS) or _is_made_up(address):
        return False
    return max(address.packed) >= 32 or bool(_NETWORK.search(before))


def _is_made_up(address: ipaddress.IPv4Address) -> bool:
    """Whether nobody looked it up: 2.2.2.2, 1.2.3.4, 4.3.2.1."""
    steps = {after - before for before, after in pairwise(address.packed)}
    return steps in ({0}, {1}, {-1})


def _is_public_ipv6(text: str) -> bool:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    if address not in _GLOBAL_IPV6 or not address.is_global or address in _PUBLIC_DNS:
        return False
    return sum(map(bool, text.split(":"))) >= 4
