"""Small tasks in lm-evaluation-harness' own form, with their data: nothing of them is fetched."""

from __future__ import annotations

from pathlib import Path

_DATA = """
from datasets import Dataset


def choices(**_):
    rows = [
        {"question": f"{a} + {b} =", "choices": [f" {a + b}", f" {a + b + 1}", f" {a * b}."], "gold": 0}
        for a, b in [(1, 2), (3, 4), (5, 6), (2, 2), (9, 9)]
    ]
    return {"train": Dataset.from_list(rows[3:]), "test": Dataset.from_list(rows[:3])}


def texts(**_):
    texts = ["x = 1\\n", "def f(x):\\n    return [x + 1, 'text']\\n" * 3, "y" * 49, "ä = 2"]
    return {"test": Dataset.from_list([{"text": text} for text in texts])}


def prompts(**_):
    texts = ["def add(one", "import os\\n", "return one + two" * 4, "def add(one"]
    return {"test": Dataset.from_list([{"prompt": text, "answer": "a"} for text in texts])}
"""

_YAML = {
    "tiny_choice": """
task: tiny_choice
custom_dataset: !function data.choices
output_type: multiple_choice
test_split: test
fewshot_split: train
doc_to_text: "{{question}}"
doc_to_target: gold
doc_to_choice: choices
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.5}
""",
    "tiny_rolling": """
task: tiny_rolling
custom_dataset: !function data.texts
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}, {metric: byte_perplexity}]
metadata: {version: 1}
""",
    "tiny_until": """
task: tiny_until
custom_dataset: !function data.prompts
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n", "q"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 2}
""",
    "tiny_unsafe": """
include: tiny_until.yaml
task: tiny_unsafe
unsafe_code: true
""",
    "tiny_broken": """
task: tiny_broken
custom_dataset: !function data.absent
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
""",
}


def write_tasks(folder: Path, *names: str) -> Path:
    """A folder for eval_include_path with the tasks of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.py").write_text(_DATA)
    for name in names:
        (folder / f"{name}.yaml").write_text(_YAML[name])
    return folder
