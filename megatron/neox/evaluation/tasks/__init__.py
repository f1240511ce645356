"""What can be measured, one task a file, plugins of kind `task`."""

from megatron.neox.evaluation.tasks.perplexity import Perplexity

__all__ = ["Perplexity"]
