"""Lines about long work."""

from __future__ import annotations

import logging

import pytest

from megatron.neox.generation.progress import Progress


def test_the_end_is_always_told(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(5, "windows")
    with caplog.at_level(logging.INFO):
        progress.add(2, 100)
        assert caplog.messages == []
        progress.add(3, 100)
    assert caplog.messages[0].startswith("5 of 5 windows, ")
    assert caplog.messages[0].endswith(" tokens/s")


def test_a_line_comes_every_interval(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.neox.generation.progress._INTERVAL_SECONDS", 0.0)
    progress = Progress(5, "samples")
    with caplog.at_level(logging.INFO):
        progress.add(1, 10)
        progress.add(1, 10)
    assert [message.split(",")[0] for message in caplog.messages] == ["1 of 5 samples", "2 of 5 samples"]
