"""preprocess_data.sh: PolyCoder's twelve languages, or as many as there are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.tokenizers import GPT2BPETokenizer
from tests.integration.training_case import ROOT, environment

LANGUAGES = [
    "C",
    "C++",
    "C#",
    "PHP",
    "Go",
    "Java",
    "JavaScript",
    "Scala",
    "TypeScript",
    "Python",
    "Ruby",
    "Rust",
]


def run(work: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "preprocess_data.sh"), *arguments], cwd=work, env={**environment(), **variables},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def write(root: Path, *languages: str) -> None:
    for language in languages:
        (root / language).mkdir(parents=True)
        (root / language / "a.txt").write_text(f"language = {language!r}\n\treturn 1\n")


@pytest.fixture
def work(polycoder: Path, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("code-vocab.json", "code-merges.txt"):
        shutil.copy(polycoder / name, tmp_path / "data")
    return tmp_path


def test_every_language_gets_a_dataset_where_polycoders_script_put_it(work: Path) -> None:
    write(work / "testsamples" / "Code-sampled50", *LANGUAGES)
    done = run(work, WORKERS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"done: {' '.join(LANGUAGES)}\n"
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(work / "data" / "code-vocab.json"), merge_file=str(work / "data" / "code-merges.txt")
    )
    for language in LANGUAGES:
        (document,) = IndexedDataset(work / "testsamples" / language / "code_text_document")
        assert tokenizer.decode(document[:-1].tolist()) == f"language = {language!r}\n\treturn 1\n"


def test_other_places_and_options_are_taken_and_absent_languages_named(work: Path) -> None:
    write(work / "in put", "C#", "Rust")
    shutil.move(work / "data", work / "words")
    places = {"VOCAB_FILE": "words/code-vocab.json", "MERGE_FILE": "words/code-merges.txt", "WORKERS": "1"}
    done = run(work, "in put", "out", "--no-append-eod", **places)
    assert done.returncode == 0, done.stderr
    absent = " ".join(name for name in LANGUAGES if name not in ("C#", "Rust"))
    assert done.stdout == f"done: C# Rust\nno folder in in put, skipped: {absent}\n"
    (document,) = IndexedDataset(work / "out" / "Rust" / "code_text_document")
    assert document[-1] != 0


def test_the_first_failure_stops_everything(work: Path) -> None:
    write(work / "in", "C", "Go")
    (work / "in" / "Go" / "a.txt").write_bytes(b"\xff")
    write(work / "in", "Rust")
    done = run(work, "in", "out", WORKERS="1")
    assert done.returncode == 2
    assert "InputError\nno document to tokenize in in/Go" in done.stderr
    assert done.stderr.endswith("stopped at Go; done before: C\n")
    assert sorted(path.name for path in (work / "out").iterdir()) == ["C", "Go"]
    assert not list((work / "out" / "Go").iterdir())


def test_a_folder_of_no_language_is_refused_and_a_missing_vocabulary_told_once(work: Path) -> None:
    done = run(work, "nowhere")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "InputError")
    assert "nowhere holds a folder of none of the languages C C++ C#" in done.stderr
    write(work / "in", "C", "Go")
    done = run(work, "in", VOCAB_FILE="gone/code-vocab.json")
    assert done.returncode == 2
    assert done.stderr.count("tools/download_checkpoint.py vocab --output gone") == 1


def test_help_ends_in_two_commands(work: Path) -> None:
    done = run(work, "--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["./preprocess_data.sh"] * 2
