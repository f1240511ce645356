"""Hooks that YAML chooses with the key `hooks`: plugins of kind `hook`."""

from megatron.neox.training.hooks import memory, profile

__all__ = ["memory", "profile"]
