"""Personal data and secrets in a text: where they stand, and the text with placeholders in their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from megatron.neox.corpus.protection.keys import find_keys
from megatron.neox.corpus.protection.personal import find_addresses, find_emails, find_names
from megatron.neox.errors import UserError, did_you_mean

KINDS: dict[str, Callable[[bytes], Iterator[tuple[int, int]]]] = {
    "key": find_keys,
    "email": find_emails,
    "ip_address": find_addresses,
    "name": find_names,
}
"""What can be found, the first of overlapping ones first."""

DEFAULT_KINDS = ("key", "email", "ip_address")


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind that there is not.

    Raises:
        UserError: the message lists those there are.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(
                f"nothing is found as '{kind}'{did_you_mean(kind, KINDS)} (there are: {', '.join(KINDS)})"
            )


def find_places(data: bytes, kinds: Sequence[str]) -> list[tuple[int, int, str]]:
    """From, to (bytes) and kind of what was found, in order, without overlaps: the earliest and longest counts."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    found = [(start, end, kind) for kind in kinds for start, end in KINDS[kind](data)]
    places: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(found, key=lambda place: (place[0], -place[1], order[place[2]])):
        if not places or start >= places[-1][1]:
            places.append((start, end, kind))
        elif end > places[-1][1]:  # nothing of a secret may be left over
            places[-1] = (places[-1][0], end, places[-1][2])
    return places


def redact(data: bytes, kinds: Sequence[str]) -> tuple[bytes, Counter[str]]:
    """The text with `<EMAIL>`, `<KEY>` and so on in place of what was found, and how often each was."""
    places = find_places(data, kinds)
    pieces, position = [], 0
    for start, end, kind in places:
        pieces += [data[position:start], f"<{kind.upper()}>".encode()]
        position = end
    return b"".join([*pieces, data[position:]]), Counter(kind for _, _, kind in places)
