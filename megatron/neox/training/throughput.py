"""Tokens a second, model FLOP/s, and the share of the device's peak (MFU).

    MFU = tokens/s * FLOPs per token / (peak of one device * devices)

FLOPs per token are `config.parameters.flops_per_token`: forward and backward of every matrix product, full
attention (the convention of Megatron and nanoGPT; `mfu_causal` counts half of it), recomputation not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

# Dense bf16 (fp16 where there is no bf16) FLOP/s by the makers' data sheets, without sparsity. The longest
# name that occurs in the device's name counts.
PEAKS = {
    "V100": 125e12,
    "T4": 65e12,
    "A10": 125e12,
    "A10G": 70e12,
    "A40": 149.7e12,
    "RTX A6000": 154.8e12,
    "A100": 312e12,
    "A800": 312e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H800": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "GeForce RTX 3090": 71e12,
    "GeForce RTX 4090": 165.2e12,
}

_MEASURE_SECONDS = 0.3


@dataclass(frozen=True)
class Peak:
    """FLOP/s of one device, and where the number is from."""

    flops_per_second: float
    source: str


def device_peak(device: torch.device, dtype: torch.dtype, *, given: float | None) -> Peak:
    """Peak of this rank's device: the given one, else the table's, else that of a measured matrix product."""
    if given is not None:
        return Peak(given, "peak_flops_per_second")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if known := [key for key in PEAKS if key in name]:
            key = max(known, key=len)
            return Peak(PEAKS[key], f"data sheet of {key}, dense bf16")
    size = 8192 if device.type == "cuda" else 1024
    measured = measure_matmul(device, dtype, size=size)
    return Peak(
        measured, f"measured product of {size} x {size} matrices, {str(dtype).removeprefix('torch.')}"
    )


def measure_matmul(device: torch.device, dtype: torch.dtype, *, size: int) -> float:
    """FLOP/s of square matrix products on this rank's threads, over about 0.3 seconds.

    A mean over a fixed time, not the best of several: ranks that share cores measure at once, and their sum
    is then what the cores give together.
    """
    left = torch.ones(size, size, device=device, dtype=dtype)
    product = left @ left
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _MEASURE_SECONDS:
        torch.mm(left, left, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        count += 1
    return count * 2 * size**3 / seconds


@dataclass(frozen=True)
class Throughput:
    """Turns tokens and seconds into the numbers that are logged."""

    flops_per_token: float
    flops_per_token_causal: float
    peak: float  # of all devices together

    def values(self, tokens: float, seconds: float) -> dict[str, float]:
        """tokens_per_second, model_flops_per_second, mfu and mfu_causal."""
        rate = tokens / seconds
        return {
            "tokens_per_second": rate,
            "model_flops_per_second": rate * self.flops_per_token,
            "mfu": rate * self.flops_per_token / self.peak,
            "mfu_causal": rate * self.flops_per_token_causal / self.peak,
        }
