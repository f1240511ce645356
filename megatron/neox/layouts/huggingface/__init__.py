"""Hugging Face's layout: config.json, tensors as safetensors or .bin files, tokenizer files.

Each family of models is one module: a table of settings and a table of tensors, each read in both directions.
"""

from megatron.neox.layouts.huggingface.folder import DTYPES, family_for, open_folder, write_folder

__all__ = ["DTYPES", "family_for", "open_folder", "write_folder"]
