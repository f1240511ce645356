"""The twelve languages of PolyCoder's test sets: the task's name, the folder, and Pygments' lexer."""

from __future__ import annotations

LANGUAGES = {
    "python": "Python",
    "c++": "C++",
    "c": "C",
    "c#": "C#",
    "php": "PHP",
    "go": "Go",
    "scala": "Scala",
    "java": "Java",
    "javascript": "JavaScript",
    "typescript": "TypeScript",
    "ruby": "Ruby",
    "rust": "Rust",
}
"""The end of the task's name, which is also an alias of the lexer, to the folder's name."""

TASK_PREFIX = "code_"

# Perplexity by Pygments 2.11.2's tokens, PolyCoder 2.7B on its own test sets: the table of the README of
# github.com/VHellendoorn/Code-LMs.
PUBLISHED_POLYCODER = {
    "C": 2.3464,
    "C#": 2.5832,
    "C++": 2.9189,
    "Go": 2.567,
    "Java": 2.9194,
    "JavaScript": 3.0611,
    "PHP": 3.6954,
    "Python": 3.1767,
    "Ruby": 3.9742,
    "Rust": 3.2449,
    "Scala": 3.8735,
    "TypeScript": 3.6143,
}
PUBLISHED_PROTOCOL = (
    "PolyCoder 2.7B on its own test sets (README of VHellendoorn/Code-LMs): windows of 1024 tokens, "
    "Pygments 2.11.2; compares with eval_compat polycoder on the same files alone"
)
