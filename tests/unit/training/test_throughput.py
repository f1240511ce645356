from __future__ import annotations

import pytest
import torch

from megatron.neox.training.throughput import Throughput, device_peak, measure_matmul


def test_the_formula() -> None:
    # 160M of reference: 816K tokens/s at 790 TFLOP/s, and 40% MFU of 989 TFLOP/s at 409K tokens/s.
    values = Throughput(0.968e9, 0.855e9, peak=989e12).values(409_000 * 2, 2.0)
    assert values["tokens_per_second"] == 409_000
    assert values["model_flops_per_second"] == pytest.approx(3.959e14, rel=1e-3)
    assert values["mfu"] == pytest.approx(0.400, abs=1e-3)
    assert values["mfu_causal"] == pytest.approx(0.354, abs=1e-3)


def test_a_given_peak_counts() -> None:
    peak = device_peak(torch.device("cpu"), torch.float32, given=5e12)
    assert (peak.flops_per_second, peak.source) == (5e12, "peak_flops_per_second")


def test_a_cpu_is_measured_and_that_is_said() -> None:
    peak = device_peak(torch.device("cpu"), torch.float32, given=None)
    assert peak.flops_per_second > 1e8
    assert peak.source == "measured product of 1024 x 1024 matrices, float32"


def test_larger_products_are_not_counted_twice() -> None:
    small = measure_matmul(torch.device("cpu"), torch.float32, size=256)
    large = measure_matmul(torch.device("cpu"), torch.float32, size=512)
    assert 0.1 < small / large < 10
