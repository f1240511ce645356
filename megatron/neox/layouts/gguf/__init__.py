"""GGUF, llama.cpp's format: one file with architecture, weights and vocabulary.

Written and read for three of llama.cpp's architectures: `gptneox` (rotary positions, sequential or parallel
residual), `gpt2` (learned positions) and `llama` (rmsnorm, swiglu). Source: ggml's docs/gguf.md and the package
`gguf`, whose constants name every key and tensor.
"""

from __future__ import annotations

from megatron.neox.layouts.gguf.read import open_file
from megatron.neox.layouts.gguf.vocabulary import tokenizer_settings
from megatron.neox.layouts.gguf.write import QUANTIZATIONS, write_file

__all__ = ["QUANTIZATIONS", "open_file", "tokenizer_settings", "write_file"]
