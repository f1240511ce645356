"""What can be measured, one task a file, plugins of kind `task`."""

from megatron.neox.evaluation.tasks.code_perplexity import CodePerplexity
from megatron.neox.evaluation.tasks.human_eval import HumanEval
from megatron.neox.evaluation.tasks.infilling import Infilling
from megatron.neox.evaluation.tasks.perplexity import Perplexity
from megatron.neox.evaluation.tasks.validation_loss import ValidationLoss

__all__ = ["CodePerplexity", "HumanEval", "Infilling", "Perplexity", "ValidationLoss"]
