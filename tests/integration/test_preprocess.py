"""From a folder of source files to .bin/.idx by the commands, and every bad input on the way."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.tokenizers import GPT2BPETokenizer
from tests.integration.training_case import ROOT, environment, write_config

CODE = "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\n"


def run(tool: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def work(polycoder: Path, tmp_path: Path) -> Path:
    """A folder with Code/ and PolyCoder's vocabulary, as the README of Code-LMs has it."""
    for name in ("code-vocab.json", "code-merges.txt"):
        shutil.copy(polycoder / name, tmp_path)
    for language in ("Python", "C"):
        folder = tmp_path / "Code" / language / "org" / "project"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_bytes(CODE.replace("\n", "\r\n").encode())
    (tmp_path / "Code" / "C" / "latin.c").write_bytes(b"// \xe9\n")
    (tmp_path / "Code" / "C" / "nul.c").write_bytes(b"\0" * 10)
    (tmp_path / "Code" / "C" / "empty.c").touch()
    (tmp_path / "Code" / "C" / "link.c").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "Code" / "C" / "pipe.c")
    return tmp_path


POLYCODERS_COMMAND = [
    "--input",
    "Code",
    "--tokenizer-type",
    "GPT2BPETokenizer",
    "--vocab-file",
    "code-vocab.json",
    "--merge-file",
    "code-merges.txt",
    "--output-prefix",
    "Preprocessed/code",
    "--workers",
    "16",
]


def test_polycoders_own_command_works_to_the_letter(work: Path) -> None:
    done = run("preprocess_data.py", *POLYCODERS_COMMAND, cwd=work)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(work / "Preprocessed")) == [
        "code_text_document.bin",
        "code_text_document.idx",
        "code_text_document.json",
    ]
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(work / "code-vocab.json"), merge_file=str(work / "code-merges.txt")
    )
    expected = [*tokenizer.encode(CODE), tokenizer.eod]
    dataset = IndexedDataset(work / "Preprocessed" / "code_text_document")
    assert [document.tolist() for document in dataset] == [expected] * 2
    assert dataset.dtype == np.uint16
    assert "NOTE: end-of-document tokens are ON" in done.stderr
    assert "MB/s" in done.stderr
    assert "tokens/s" in done.stderr
    for reason in ("1 not_utf8", "1 binary", "1 empty", "1 symlink", "1 special_file"):
        assert reason in done.stderr
    recorded = json.loads((work / "Preprocessed" / "code_text_document.json").read_text())
    assert recorded["tokenizer"] == tokenizer.fingerprint()


def test_three_paths_changed_in_local_setup_train_on_its_output(work: Path) -> None:
    shutil.copy(Path(sysconfig.get_path("stdlib")) / "ast.py", work / "Code" / "Python")
    assert run("preprocess_data.py", *POLYCODERS_COMMAND, cwd=work).returncode == 0
    setup = (ROOT / "configs" / "local_setup.yml").read_text()
    for shipped, ours in {
        "data/code/code_text_document": "Preprocessed/code_text_document",
        "data/code-vocab.json": "code-vocab.json",
        "data/code-merges.txt": "code-merges.txt",
    }.items():
        assert f'"{shipped}"' in setup
        setup = setup.replace(shipped, ours)
    (work / "local_setup.yml").write_text(setup)
    write_config(work / "tiny.yml", tokenizer_type="GPT2BPETokenizer", split="100", train_iters=2)
    done = subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), "train.py", "local_setup.yml", "tiny.yml"],
        cwd=work, env=environment(), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (work / "checkpoints" / "latest").read_text().strip() == "global_step2"
    assert not (work / "tensorboard").exists(), "the base requirements do not bring TensorBoard"


def test_the_order_is_the_same_for_any_number_of_workers(work: Path) -> None:
    for number in range(30):
        (work / "Code" / f"{number}.py").write_text(CODE * number + "x\n")
    for workers in (1, 2):
        arguments = [*POLYCODERS_COMMAND, "--output-prefix", workers, "--workers", workers]
        assert run("preprocess_data.py", *arguments, cwd=work).returncode == 0
    for ending in (".bin", ".idx", ".json"):
        one, two = (work / f"{workers}_text_document{ending}" for workers in (1, 2))
        assert one.read_bytes() == two.read_bytes()


def refused(work: Path, *changes: object) -> str:
    before = sorted(str(path) for path in work.rglob("*"))
    done = run("preprocess_data.py", *POLYCODERS_COMMAND, *changes, "--workers", 1, cwd=work)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    left = set(map(str, work.rglob("*"))) - set(before)
    assert left <= {str(work / "Preprocessed")}
    return done.stderr


def test_bad_inputs_are_named_with_a_remedy(work: Path) -> None:
    (work / "bare").mkdir()
    (work / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (work / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 99)[:-9])
    (work / "bad.parquet").write_bytes(b"PAR1")
    (work / "other.txt").write_text("#version: 0.2\nqq qq\n")
    cases = {
        "InputError\nno document to tokenize in bare": ["--input", "bare"],
        "InputError\nthe input nowhere does not exist": ["--input", "nowhere"],
        "InputError\nbad.jsonl:2: not JSON": ["--input", "bad.jsonl"],
        "InputError\ncut.jsonl.gz is damaged or cut short": ["--input", "cut.jsonl.gz"],
        "InputError\nbad.parquet is not a readable parquet file": ["--input", "bad.parquet"],
        "VocabularyError\ncannot read data/code-vocab.json": ["--vocab-file", "data/code-vocab.json"],
        "VocabularyError\nother.txt does not belong to code-vocab.json": ["--merge-file", "other.txt"],
        "UnknownPartError\nno tokenizer is named 'GPT2'": ["--tokenizer-type", "GPT2"],
        "DependencyError\n--ftfy needs the package ftfy": ["--ftfy"],
        "OutputError\ncannot write other.txt/code_text_document": ["--output-prefix", "other.txt/code"],
        "workers must be at least 1": ["--workers", "0", "--log-interval", "0"],
    }
    for message, changes in cases.items():
        if "workers" in message:
            done = run("preprocess_data.py", *POLYCODERS_COMMAND, *changes, cwd=work)
            assert (done.returncode, message in done.stderr) == (2, True)
        else:
            assert message in refused(work, *changes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", ","], "--input names nothing"),
        (["--jsonl-keys", "text", "other", "text"], "--jsonl-keys names a key twice"),
        (["--num-docs", "-5"], "--num-docs must be at least 1"),
    ],
)
def test_arguments_that_mean_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(ROOT / "tools" / "preprocess_data.py"))["main"]
    with pytest.raises(SystemExit, match="2"):
        main([*POLYCODERS_COMMAND, *words])
    assert message in capsys.readouterr().err


def test_an_output_that_exists_is_kept(work: Path) -> None:
    first = run("preprocess_data.py", *POLYCODERS_COMMAND, "--workers", 1, cwd=work)
    assert first.returncode == 0, first.stderr
    assert "OutputError\nPreprocessed/code_text_document.bin and" in refused(work)
    again = run("preprocess_data.py", *POLYCODERS_COMMAND, "--workers", 1, "--overwrite", cwd=work)
    assert again.returncode == 0, again.stderr


def test_a_full_disk_is_no_users_mistake(work: Path) -> None:
    (work / "Preprocessed").mkdir()
    (work / "Preprocessed" / "code_text_document.bin.partial").symlink_to("/dev/full")
    done = run("preprocess_data.py", *POLYCODERS_COMMAND, "--workers", 2, cwd=work)
    assert done.returncode == 1
    assert "ResourceError\nno space left on the disk while writing" in done.stderr
    assert "code_text_document.bin" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(work / "Preprocessed") == ["code_text_document.parts"]  # for --resume


def children_of(process: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        signal.SIGKILL,
    ],
)
def test_a_stopped_run_goes_on_where_it_was(work: Path, how: signal.Signals) -> None:
    for number in range(3000):
        (work / "Code" / f"{number}.py").write_text(f"x{number} = 1\n" * 400)
    command = [*POLYCODERS_COMMAND, "--workers", "2", "--engine", "tokenizer"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "preprocess_data.py"), *command],
        cwd=work, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    parts = work / "Preprocessed" / "code_text_document.parts"
    deadline = time.monotonic() + 100
    while len(list(parts.glob(".stage/done/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children_of(process.pid)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # Ctrl-C reaches the workers too
    else:
        process.send_signal(how)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert "Traceback" not in messages
    assert os.listdir(work / "Preprocessed") == ["code_text_document.parts"]
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    resumed = run("preprocess_data.py", *command, "--engine", "auto", "--resume", cwd=work)
    assert resumed.returncode == 0, resumed.stderr
    if how is signal.SIGKILL:
        straight = run("preprocess_data.py", *POLYCODERS_COMMAND, "--output-prefix", "straight", cwd=work)
        assert straight.returncode == 0, straight.stderr
        for ending in (".bin", ".idx", ".json"):
            one, other = (
                work / f"{name}_text_document{ending}" for name in ("straight", "Preprocessed/code")
            )
            assert one.read_bytes() == other.read_bytes()


def test_the_quick_starts_first_three_commands(tmp_path: Path) -> None:
    library = tmp_path / "library"
    for name in ("json", "email", "argparse.py", "ast.py", "base64.py"):
        source = Path(sysconfig.get_path("stdlib")) / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (library / name).parent.mkdir(exist_ok=True)
        copy(source, library / name)
    collected = run(
        "collect/collect_folder.py",
        "--input",
        library,
        "--output",
        "corpus",
        "--heldout-share",
        0.1,
        cwd=tmp_path,
    )
    assert collected.returncode == 0, collected.stderr
    assert "other_extension" in collected.stdout or "excluded" in collected.stdout
    trained = run(
        "train_tokenizer.py",
        "--input",
        "corpus/train",
        "--vocab-size",
        1024,
        "--output",
        "vocabulary",
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "1024 pieces" in trained.stdout
    arguments = [
        "--tokenizer-type",
        "GPT2BPETokenizer",
        "--vocab-file",
        "vocabulary/vocab.json",
        "--merge-file",
        "vocabulary/merges.txt",
    ]
    for part in ("train", "heldout"):
        done = run(
            "preprocess_data.py", "--input", f"corpus/{part}", *arguments, "--append-eod",
            "--output-prefix", f"data/{part}", "--workers", 2, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(tmp_path / "vocabulary/vocab.json"), merge_file=str(tmp_path / "vocabulary/merges.txt")
    )
    written = {path.read_text() for path in (tmp_path / "corpus" / "train").rglob("*.py")}
    dataset = IndexedDataset(tmp_path / "data" / "train_text_document")
    assert {tokenizer.decode(document[:-1]) for document in dataset} == written
    assert all(document[-1] == tokenizer.eod for document in dataset)
    again = run("train_tokenizer.py", "--input", "corpus/train", "--output", "vocabulary", cwd=tmp_path)
    assert (again.returncode, again.stderr.split("\n")[0]) == (2, "OutputError")


@pytest.mark.parametrize("tool", ["preprocess_data.py", "train_tokenizer.py", "collect/collect_folder.py"])
def test_help_ends_in_two_commands(tool: str, tmp_path: Path) -> None:
    done = run(tool, "--help", cwd=tmp_path)
    assert done.returncode == 0
    examples = done.stdout.partition("examples:\n")[2].replace("\\\n", "")
    assert [line.split()[0] for line in examples.splitlines() if line.strip()] == [f"tools/{tool}"] * 2
