"""tools/eval_codex_all.py against a completions endpoint on this machine, well behaved and not."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import run_door
from megatron.neox.evaluation.evaluated import HuggingFaceTokenizer
from megatron.neox.evaluation.evaluated.huggingface import HuggingFaceModel
from megatron.neox.evaluation.scoring import Scored, TokenScorer
from megatron.neox.evaluation.task import build_tasks
from megatron.neox.generation.workers import Workers
from tests.huggingface_folders import NUM_POSITIONS, save_model
from tests.integration.completions import Completions, serve

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "eval_codex_all.py"
SHORT = "x = 1\nprint('é ☕')\n"
LONG = "import os\n\n\ndef first(names):\n    for name in names:\n        return name\n\n\n" * 4
FILES = {
    "Python/ann/web/a.py": SHORT,
    "Python/ann/web/b.py": LONG,
    "C/bob/os/m.c": "int main(void) { return 0; }\n",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "gpt2")


@pytest.fixture
def server(model: Path) -> Iterator[Completions]:
    with serve(Completions(model, NUM_POSITIONS)) as served:
        yield served


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, text in FILES.items():
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "code"


@pytest.fixture(scope="module")
def tool() -> Callable[..., int]:
    """The tool's main, in this process."""
    spec = importlib.util.spec_from_file_location("eval_codex_all", TOOL)
    assert spec is not None
    assert spec.loader is not None
    path, argv = sys.path[:], sys.argv
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:], sys.argv = path, argv
    return lambda *arguments: run_door(module.main, arguments)


def options(server: Completions, **given: Any) -> list[str]:
    keys = {"dirs": "code", "base-url": server.url, "model": "tiny", "context-tokens": NUM_POSITIONS}
    keys |= {
        "retry-wait": 0,
        "retries": 2,
        "timeout": 20,
        **{k.replace("_", "-"): v for k, v in given.items()},
    }
    return [
        part for key, value in keys.items() for part in (f"--{key}", *([] if value is True else [str(value)]))
    ]


def rows(path: str = "eval_codex_all.jsonl") -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())}


def scorer_of(server: Completions) -> tuple[HuggingFaceModel, HuggingFaceTokenizer]:
    size = len(server.tokenizer)
    tokenizer = HuggingFaceTokenizer(server.tokenizer, num_rows=size, source="tiny")
    return HuggingFaceModel(server.model, vocab_size=size, max_positions=NUM_POSITIONS), tokenizer


def own_scores(server: Completions, row: dict[str, Any], text: str) -> tuple[float, int]:
    """log p and tokens of a file's windows by our own scorer."""
    model, tokenizer = scorer_of(server)
    scorer = TokenScorer(model, padding=0, vocab_size=tokenizer.vocab_size, batch_size=4)
    sequences = []
    for number, window in enumerate(row["windows"]):
        context = (
            [tokenizer.start]
            if number == 0
            else tokenizer.encode(text[window["start"] : window["scored_from"]])
        )
        scored = tokenizer.encode(text[window["scored_from"] : window["scored_to"]])
        assert len(context) + len(scored) <= NUM_POSITIONS
        sequences.append(Scored(torch.tensor([*context, *scored]), len(scored)))
    scores = scorer.score(sequences, "windows")
    return sum(score.log_likelihood for score in scores), sum(sequence.num_scored for sequence in sequences)


def test_the_result_is_that_of_our_own_scorer(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(*options(server)) == 0
    printed = capsys.readouterr().out
    found = rows()
    model, tokenizer = scorer_of(server)
    settings = EvaluationConfig(eval_tasks=["code_python", "code_c"], eval_data_path=str(code))
    ours = {
        row["path"]: row
        for task in build_tasks(settings).values()
        for row in task.run(model, tokenizer, Workers()).documents
    }
    for path in ("ann/web/a.py", "bob/os/m.c"):
        assert found[path]["windows"] == []
        assert found[path]["log_likelihood"] == pytest.approx(ours[path]["log_likelihood"], rel=1e-5)
        assert found[path]["tokens"] == ours[path]["tokens"]
    long = found["ann/web/b.py"]
    assert len(long["windows"]) > 2
    assert [w["scored_from"] for w in long["windows"][1:]] == [w["scored_to"] for w in long["windows"][:-1]]
    assert (long["windows"][0]["scored_from"], long["windows"][-1]["scored_to"]) == (0, len(LONG))
    assert long["tokens"] == ours["ann/web/b.py"]["tokens"] == len(tokenizer.encode(LONG))
    score, count = own_scores(server, long, LONG)
    assert count == long["tokens"]
    assert long["log_likelihood"] == pytest.approx(score, rel=1e-5)
    assert long["unaligned_windows"] == 0
    both = [found["ann/web/a.py"], long]
    total, tokens = sum(row["log_likelihood"] for row in both), sum(row["tokens"] for row in both)
    assert f"| Python   | 2     | {total:.2f} " in printed
    assert f"| {-total / tokens:.4f} " in printed
    assert f" | {tokens} " in printed
    assert server.prompts[0].startswith("<|endoftext|>")


@pytest.mark.parametrize("changes", [{"takes_no_new_tokens": False}, {"tells_offsets": False}], ids=str)
def test_servers_that_answer_a_little_otherwise(
    server: Completions,
    code: Path,
    tool: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, bool],
) -> None:
    for name, value in changes.items():
        setattr(server, name, value)
    (code / "Python" / "ann" / "web" / "a.py").write_text(short := SHORT.encode("ascii", "ignore").decode())
    assert tool(*options(server)) == 0
    for path, text in (("ann/web/a.py", short), ("ann/web/b.py", LONG)):
        row = rows()[path]
        window = {"start": 0, "scored_from": 0, "scored_to": len(text)}
        score, count = own_scores(server, {"windows": row["windows"] or [window]}, text)
        assert (row["log_likelihood"], row["tokens"]) == (pytest.approx(score, rel=1e-5), count)
    said = sum("it is asked for 1, and that token is dropped" in message for message in caplog.messages)
    assert said == ("takes_no_new_tokens" in changes)


def test_offsets_are_not_guessed(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens that are parts of a character do not spell it."""
    server.tells_offsets = False
    assert tool(*options(server)) == 2
    assert "text_offset is missing, and the tokens do not spell the prompt" in capsys.readouterr().err


def test_what_passes_is_tried_again(server: Completions, code: Path, tool: Callable[..., int]) -> None:
    server.faults = ["throttle", 500, "cut", 503]
    assert tool(*options(server, workers=1, retries=4, retry_wait=0.01)) == 0
    # The cut answer was a whole one for the server.
    assert server.statuses[:4] == [429, 500, 200, 503]
    assert len(rows()) == 3


@pytest.mark.parametrize(
    ("always", "code_of_exit", "message"),
    [
        (429, 1, "HTTP 429 (status 429 for the key [key]); given up at attempt 3"),
        (500, 1, "HTTP 500 (status 500 for the key [key]); given up at attempt 3"),
        ("cut", 1, "given up at attempt 3"),
        ("garbage", 2, "it begins '<html>not what you are looking for</html>'"),
        ("empty", 2, "choices[0].logprobs is missing"),
        ("null", 2, "token_logprobs holds what is no number"),
        (400, 2, "HTTP 400: status 400 for the key [key]\n  the server refuses the request"),
        (401, 2, "HTTP 401: status 401 for the key [key]\n  the key is not taken"),
        (302, 2, "is not followed"),
    ],
)
def test_what_does_not_pass_is_one_message(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    always: str | int, code_of_exit: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server.always = always
    assert tool(*options(server, workers=2)) == code_of_exit
    errors = capsys.readouterr().err
    assert message in errors
    assert len([line for line in errors.splitlines() if line.endswith("Error")]) == 1
    assert server.keys == {"Bearer sk-secret"}
    assert "sk-secret" not in errors + caplog.text + Path("eval_codex_all.jsonl").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"base_url": "https://api.example.com/v1"},
            "OPENAI_API_KEY is not set; api.example.com needs a key",
        ),
        ({"base_url": "ftp://127.0.0.1"}, "is no address"),
        ({"base_url": "http://[::1"}, "is no address"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "is no address"),
        ({"base_url": "http://127.0.0.1/v1?key=sk-secret"}, "--base-url holds more than an address"),
        ({"base_url": "http://127.0.0.1:9/v1", "retries": 0}, "the connection failed"),
        ({"model": "other"}, "HTTP 404: no such model"),
        ({"dirs": "absent"}, "does not exist"),
        ({"dirs": "bare"}, "bare holds no file that can be scored of C, C#, C++"),
        ({"price_per_million": 2}, "nothing was sent: --yes agrees"),
        ({"output": "damaged.jsonl"}, "damaged.jsonl:1 is no row of results"),
        ({"context_tokens": 2}, "too long"),
    ],
    ids=str,
)
def test_mistakes_are_told_before_anything_is_scored(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    (code.parent / "bare" / "Cobol").mkdir(parents=True)
    (code.parent / "damaged.jsonl").write_text("{}\n")
    if "context_tokens" in given:
        server.context = 1
    assert tool(*options(server, **given)) == (1 if given.get("retries") == 0 else 2)
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert "secret" not in errors
    assert server.prompts == []


@pytest.mark.parametrize("key", ["sk-sec\nret", "sk-secrét", "sk-\0secret"])
def test_what_is_no_key_is_not_shown(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, key: str,
) -> None:  # fmt: skip
    """http.client's own message holds the whole header."""
    monkeypatch.setattr("os.environ", {**os.environ, "OPENAI_API_KEY": key})
    assert tool(*options(server)) == 2
    printed = capsys.readouterr()
    assert "OPENAI_API_KEY is no key: it holds characters that no key has" in printed.err
    assert "sk-" not in printed.out + printed.err


def test_a_password_in_the_address_is_refused_and_not_shown(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(*options(server, base_url=server.url.replace("://", "://user:secret@"))) == 2
    errors = capsys.readouterr().err
    assert "--base-url holds more than an address" in errors
    assert "secret" not in errors


def test_a_line_end_behind_the_key_is_not_of_it(
    server: Completions, code: Path, tool: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    assert tool(*options(server)) == 0
    assert server.keys == {"Bearer sk-secret"}


def test_files_of_one_text_are_sent_once(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (code / "Python" / "copy.py").write_text(SHORT)
    assert tool(*options(server)) == 0
    printed = capsys.readouterr()
    assert "4 files to score (1 of them with the text of another), " in printed.err
    assert "holds the scores" not in printed.err
    assert (
        f"{sum(row['tokens_sent'] for row in rows().values()):,} tokens were sent; of 4 files" in printed.out
    )
    assert "| Python   | 3 " in printed.out
    assert tool(*options(server)) == 0
    assert "holds the scores of 4 files" in capsys.readouterr().err


def test_a_key_does_not_go_over_the_network_in_the_clear(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert tool(*options(server, base_url="http://api.example.com/v1")) == 2
    assert "is not https" in capsys.readouterr().err


def test_files_that_cannot_be_read_as_text_are_counted_and_said(
    server: Completions, code: Path, tool: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    (code / "Python" / "latin.py").write_bytes(b"# \xe9\n")
    (code / "C" / "blank.c").write_bytes(b" \n")
    assert tool(*options(server)) == 0
    assert len(rows()) == 3
    assert "code: left out: C: 1 blank; Python: 1 not_utf8" in caplog.text


def test_nothing_is_scored_twice_nor_paid_for_unasked(
    server: Completions, code: Path, tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(*options(server, price_per_million=2, yes=True)) == 0
    first = capsys.readouterr()
    assert "3 files to score, " in first.err
    assert "about $0.00 at $2 a million" in first.err
    asked, content = len(server.prompts), Path("eval_codex_all.jsonl").read_text()
    assert tool(*options(server)) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert len(server.prompts) == asked
    (code / "C" / "new.c").write_text("int n;\n")
    assert tool(*options(server)) == 0
    assert len(server.prompts) == asked + 1
    # A line without its end, as a kill in the midst of a write would leave it, is done again.
    Path("eval_codex_all.jsonl").write_text(content[:-20])
    assert tool(*options(server)) == 0
    assert len(rows()) == 4


def test_a_killed_run_keeps_what_it_has(server: Completions, code: Path) -> None:
    """SIGKILL after the first rows; the same command asks for the rest alone."""
    for number in range(30):
        (code / "Python" / f"{number}.py").write_text(f"x = {number}\n")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(TOOL), *options(server, workers=1)]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file, deadline = Path("eval_codex_all.jsonl"), time.monotonic() + 60
    while time.monotonic() < deadline and (not file.exists() or file.read_bytes().count(b"\n") < 2):
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    kept = file.read_bytes().count(b"\n")
    assert 2 <= kept < 33
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"holds the scores of {kept} files" in done.stderr
    assert len(rows()) == 33
    assert len(server.prompts) <= 33 + len(rows()["ann/web/b.py"]["windows"])
