"""What git and GitHub say of a clone that failed, and the word for it."""

from __future__ import annotations

import pytest

from megatron.neox.corpus.clone.outcomes import may_pass, moved_to, outcome_of

AT = "'https://github.com/a/b/'"


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (f"fatal: repository {AT} not found", "gone"),
        ("fatal: 'served/x.git' does not appear to be a git repository", "gone"),
        ("fatal: could not read Username for 'https://github.com': terminal prompts disabled", "private"),
        (f"remote: Invalid username or password.\nfatal: Authentication failed for {AT}", "private"),
        (
            "remote: Repository unavailable due to DMCA takedown.\nfatal: unable to access "
            f"{AT}: The requested URL returned error: 451",
            "blocked",
        ),
        (
            "remote: Access to this repository has been disabled by GitHub staff.\nfatal: unable to access "
            f"{AT}: The requested URL returned error: 403",
            "blocked",
        ),
        (f"fatal: unable to access {AT}: The requested URL returned error: 403", "failed"),
        ("fatal: couldn't find remote ref HEAD", "empty"),
        (f"fatal: remote error: upload-pack: not our ref {'1' * 40}", "commit_gone"),
        (f"fatal: couldn't find remote ref {'1' * 40}", "commit_gone"),
        ("error: unable to create file x: File name too long", "failed"),
    ],
)
def test_outcomes(told: str, outcome: str) -> None:
    assert outcome_of(told) == outcome
    assert not may_pass(told)


@pytest.mark.parametrize(
    "told",
    [
        f"fatal: unable to access {AT}: The requested URL returned error: 503",
        f"fatal: unable to access {AT}: Could not resolve host: github.com",
        f"fatal: unable to access {AT}: Failed to connect to github.com port 443: Connection refused",
        "error: RPC failed; curl 92 HTTP/2 stream 5 was not closed cleanly\nfatal: early EOF",
        f"fatal: unable to access {AT}: Operation too slow. Less than 1000 bytes/sec transferred the last 60 seconds",
    ],
)
def test_what_may_pass(told: str) -> None:
    assert outcome_of(told) == "failed"
    assert may_pass(told)


def test_where_it_moved() -> None:
    told = "warning: redirecting to https://github.com/new/b/\nFrom https://github.com/a/b\n"
    assert moved_to(told) == "https://github.com/new/b"
    assert moved_to("From https://github.com/a/b") is None
