"""Data and metrics of the tasks code_*.yaml, for lm-evaluation-harness with any of its models.

`lm_eval --include_path megatron/neox/evaluation/harness_tasks --tasks code_python --model hf ...`; the folder of
files comes as `--metadata '{"data_path": "evaldata/Code-sampled100"}'`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

# A checkout that is not installed; last, so that its evaluate.py does not hide the package `evaluate`.
sys.path.append(str(Path(__file__).resolve().parents[4]))

from megatron.neox.config import EvaluationConfig
from megatron.neox.evaluation.lexing import count_language_tokens
from megatron.neox.evaluation.tasks.code_perplexity import CodePerplexity
from megatron.neox.plugins import tasks


def load(*, language: str, data_path: str | None = None, **_: Any) -> dict[str, Dataset]:
    """The files that our own task of the language would score, one a row.

    Raises:
        InputError: there is none.
    """
    task: CodePerplexity = tasks.build(f"code_{language.lower()}", EvaluationConfig(eval_data_path=data_path))
    rows = [{"path": file.name, "language": language, "text": file.text} for file in task.files]
    return {"test": Dataset.from_list(rows)}


def process_results(document: Mapping[str, str], results: Sequence[float]) -> dict[str, tuple[float, int]]:
    """log p of a file, and what it is divided by in the end; word_perplexity is by Pygments' tokens."""
    (score,) = results
    num_bytes = len(document["text"].encode())
    return {
        "bits_per_byte": (score, num_bytes),
        "word_perplexity": (score, count_language_tokens(document["language"], document["text"])),
        "byte_perplexity": (score, num_bytes),
    }
