"""The twelve languages of PolyCoder's test sets: the task's name, the folder, and Pygments' lexer."""

from __future__ import annotations

from megatron.neox.downloads import evaluation_sets

LANGUAGES = {name.lower(): name for name in evaluation_sets.LANGUAGES}
"""The end of the task's name, which is also an alias of the lexer, to the folder's name."""

TASK_PREFIX = "code_"
