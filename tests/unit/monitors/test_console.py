from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys

import pytest

from megatron.neox.monitors.console import ConsoleMonitor, describe_step


def test_a_step_is_one_line_to_search_for() -> None:
    values = {
        "loss": 3.12345,
        "validation_loss": 3.5,
        "validation_perplexity": 33.115,
        "learning_rate": 6e-4,
        "grad_norm": 1.25,
        "skipped_steps": 0.0,
        "tokens_per_second": 12345.6,
        "model_flops_per_second": 1.5e12,
        "mfu": 0.3125,
        "tokens": 4096.0,
    }
    assert describe_step(100, 2000, values) == (
        "step 100/2000 loss 3.1235 validation_loss 3.5000 validation_perplexity 33.12 "
        "learning_rate 6.000e-04 grad_norm 1.250 tokens/s 12346 FLOP/s 1.500e+12 mfu 31.2%"
    )


def test_skipped_steps_and_absent_numbers_are_said() -> None:
    line = describe_step(3, 9, {"loss": 2.0, "grad_norm": None, "skipped_steps": 2.0})
    assert line == "step 3/9 loss 2.0000 grad_norm none skipped 2"


def test_lines_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    monitor = ConsoleMonitor(num_steps=10)
    monitor.start({})
    with caplog.at_level(logging.INFO):
        monitor.log(5, {"loss": 1.0})
    monitor.close()
    assert caplog.messages == ["step 5/10 loss 1.0000"]


def test_a_terminal_shows_a_bar_and_the_lines() -> None:
    program = """
import logging, sys
logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
from megatron.neox.monitors.console import ConsoleMonitor
monitor = ConsoleMonitor(num_steps=10)
monitor.start({})
for step in (5, 10):
    monitor.log(step, {"loss": 1.0})
monitor.close()
logging.info("afterwards")
"""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", program], stderr=slave, stdout=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux reports the closed terminal as an error
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0
    text = shown.decode()
    assert "step 5/10 loss 1.0000" in text
    assert "10/10" in text
    assert "afterwards" in text
