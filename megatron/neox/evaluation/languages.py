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
