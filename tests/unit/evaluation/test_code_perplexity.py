"""The tasks code_*: which files they read from what, what they count, and what compatibility changes."""

from __future__ import annotations

import io
import logging
import math
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from megatron.neox.config import EvaluationConfig
from megatron.neox.engine.inference import InferenceModel
from megatron.neox.errors import ConfigError, InputError
from megatron.neox.evaluation.compatibility import with_padding
from megatron.neox.evaluation.languages import LANGUAGES
from megatron.neox.evaluation.lexing import MEASURED_TOKENS, count_language_tokens, version_effect
from megatron.neox.evaluation.results import code_table
from megatron.neox.evaluation.scoring import Scored, TokenScorer
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel
from tests.unit.evaluation.test_perplexity import Uniform

FILES = {
    "Python/ann/tools/a.py": b"def f(x):\r\n    return x\r\n",
    "Python/ann/tools/sub/b.py": b"\xef\xbb\xbfx = 1\n",
    "Python/bob/web/blank.py": b" \n\t\n",
    "Python/bob/web/latin.py": "# Grüße\n".encode("latin-1"),
    "Python/bob/web/nul.py": b"a = '\0'\n",
    "C/carl/os/main.c": b"int main(void) { return 0; }\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "data"


def tar_of(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def measure(path: Path, name: str = "code_python", **keys: Any) -> TaskResult:
    settings = EvaluationConfig(eval_tasks=[name], eval_data_path=str(path), **keys)
    return build_tasks(settings)[name].run(Uniform(), CharLevelTokenizer(), Workers())


def test_all_twelve_languages_are_tasks() -> None:
    names = {part.name for part in tasks if part.name.startswith("code_")}
    assert names == {f"code_{suffix}" for suffix in LANGUAGES}
    assert len(names) == 12
    assert tasks.part("code_c#").summary.startswith(
        "Bits per byte and perplexity, with 95% intervals, of the C#"
    )


def test_what_is_read_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = measure(folder)
    metrics = result.metrics
    assert [row["path"] for row in result.documents] == ["ann/tools/a.py", "ann/tools/sub/b.py"]
    assert result.config["skipped"] == {"blank": 1, "not_utf8": 1, "binary": 1}
    assert "Python in" in caplog.text
    assert "2 files; left out: 1 blank, 1 not_utf8, 1 binary" in caplog.text
    assert next(iter(metrics)) == "bits_per_byte"
    assert metrics["bits_per_byte"] == pytest.approx(9.0, rel=1e-6)
    assert metrics["token_perplexity"] == pytest.approx(512, rel=1e-6)
    # CRLF is LF and the byte order mark is gone: 23 + 6 bytes; 13 + 6 Pygments tokens.
    assert (metrics["num_bytes"], metrics["num_model_tokens"], metrics["num_pygments_tokens"]) == (29, 29, 19)
    assert metrics["pygments_perplexity"] == pytest.approx(math.exp(29 * math.log(512) / 19), rel=1e-6)
    assert metrics["pygments_perplexity_ci95_low"] == pytest.approx(math.exp(6 * math.log(512) / 6), rel=1e-6)
    assert metrics["pygments_perplexity_ci95_high"] == pytest.approx(
        math.exp(23 * math.log(512) / 13), rel=1e-6
    )
    assert metrics["num_files_seen_in_training"] is None


def test_polycoders_reading(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Byte order mark and NUL stay, undecodable files are left out where it died; and its names for the metrics."""
    with caplog.at_level(logging.WARNING):
        result = measure(folder, eval_compat="polycoder")
    metrics = result.metrics
    assert [row["path"] for row in result.documents] == [
        "ann/tools/a.py", "ann/tools/sub/b.py", "bob/web/nul.py",
    ]  # fmt: skip
    assert [row["bytes"] for row in result.documents] == [23, 9, 8]
    assert result.config["skipped"] == {"blank": 1, "not_utf8": 1}
    assert "PolyCoder's evaluation would have died of not_utf8" in caplog.text
    assert (result.config["window"], result.config["stride"]) == (24, 24)
    assert "windows of 24 tokens; the published figures are of 1024" in caplog.text
    assert "the published figures are of 2.11.2; on 2 MB of other Python code" in caplog.text
    assert metrics["word_perplexity"] == metrics["pygments_perplexity"]
    assert metrics["nats_per_byte"] == pytest.approx(math.log(512 + 40 * math.exp(9)))


def test_polycoders_lost_tokens(tmp_path: Path) -> None:
    """A file of one token, and the last window of one token, score nothing and count in every denominator."""
    (tmp_path / "Go").mkdir()
    for name, length in {"one.go": 1, "even.go": 8, "odd.go": 9}.items():
        (tmp_path / "Go" / name).write_text("a" * length)
    result = measure(tmp_path, "code_go", eval_compat="polycoder", eval_window=4)
    scored = {row["path"]: row["tokens_scored"] for row in result.documents}
    assert scored == {"one.go": 0, "even.go": 8, "odd.go": 8}
    assert result.metrics["num_model_tokens"] == 18
    assert result.metrics["num_tokens_not_scored"] == 2
    # The uniform model's rows of padding are likelier than its vocabulary, and the fork's softmax has them too.
    each = -math.log(512 + 40 * math.exp(9))
    assert result.metrics["log_likelihood"] == pytest.approx(16 * each, rel=1e-6)
    plain = measure(tmp_path, "code_go", eval_window=4)
    assert plain.metrics["num_tokens_not_scored"] == 0
    assert plain.metrics["log_likelihood"] == pytest.approx(-18 * math.log(512), rel=1e-6)


def test_rows_of_padding_take_part_for_polycoder_alone() -> None:
    tiny = TinyLanguageModel()
    model = InferenceModel(
        tiny.net, tiny.config, tiny.parallel, vocab_size=VOCAB_SIZE, padded_vocab_size=VOCAB_SIZE + 40,
        checkpoint=Path(),
    )  # fmt: skip
    import torch

    sequence = [Scored(torch.arange(12), 11)]
    logits = tiny.logits(sequence[0].ids[:-1].unsqueeze(0))[0].double()
    expected = logits.log_softmax(-1)[range(11), sequence[0].ids[1:].tolist()].sum().item()
    masked = logits[:, :VOCAB_SIZE].log_softmax(-1)[range(11), sequence[0].ids[1:].tolist()].sum().item()
    found = TokenScorer(with_padding(model), padding=0, vocab_size=None, batch_size=1).score(sequence, "x")[0]
    assert found.log_likelihood == pytest.approx(expected, rel=1e-6)
    again = TokenScorer(model, padding=0, vocab_size=VOCAB_SIZE, batch_size=1).score(sequence, "x")[0]
    assert again.log_likelihood == pytest.approx(masked, rel=1e-6)


@pytest.mark.parametrize("prefix", ["", "./", "Code-sampled100/"])
def test_a_tar_holds_the_same(folder: Path, tmp_path: Path, prefix: str) -> None:
    archive = tar_of(tmp_path / "sets.tar.gz", FILES, prefix)
    assert measure(archive).documents == measure(folder).documents
    assert measure(archive, "code_c").metrics == measure(folder, "code_c").metrics


def test_parquet_holds_the_same(folder: Path, tmp_path: Path) -> None:
    rows = [
        (name.split("/", 1), data.decode("latin-1")) for name, data in FILES.items() if b"\xef" not in data
    ]
    table = pa.table(
        {
            "content": [text for _, text in rows],
            "language": [language.lower() for (language, _), _ in rows],
            "path": [path for (_, path), _ in rows],
        }
    )
    parquet.write_table(table, tmp_path / "code.parquet")
    found = measure(tmp_path / "code.parquet")
    assert found.documents[0] == measure(folder).documents[0]
    assert [row["path"] for row in found.documents] == ["ann/tools/a.py", "bob/web/latin.py"]


def test_limits(folder: Path) -> None:
    assert measure(folder, eval_limit=1).metrics["num_files"] == 1
    assert measure(folder, eval_limit=0.3).metrics["num_files"] == 1
    assert measure(folder, eval_limit=7).metrics["num_files"] == 2


def evil(tmp_path: Path) -> Path:
    return tar_of(tmp_path / "evil.tar.gz", {"Python/a.py": b"x\n", "Python/../../b.py": b"y\n"})


def cut_short(tmp_path: Path) -> Path:
    path = tar_of(tmp_path / "cut.tar.gz", {"Python/a.py": bytes(range(256)) * 40})
    path.write_bytes(path.read_bytes()[:60])
    return path


def without_language(tmp_path: Path) -> Path:
    parquet.write_table(pa.table({"text": ["x"], "lang": ["Python"]}), tmp_path / "no.parquet")
    return tmp_path / "no.parquet"


def text_file(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text("x = 1\n")
    return tmp_path / "a.py"


def only_blank(tmp_path: Path) -> Path:
    (tmp_path / "Python").mkdir()
    (tmp_path / "Python" / "a.py").write_text("\n")
    return tmp_path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (evil, r"evil.tar.gz is refused: 'Python/../../b.py' leads out of the folder"),
        (cut_short, r"cut.tar.gz is not a whole tar archive: .*; fetch it again"),
        (without_language, r"no.parquet has no column language; did you mean lang\?; it has: text, lang"),
        (text_file, r"a.py is neither a folder, nor .tar.gz, nor .parquet"),
        (only_blank, r"holds no Python file that can be scored \(left out: 1 blank\)"),
        (lambda path: path / "absent", r"absent does not exist .*\n  tools/download_eval_data.py fetches"),
    ],
)
def test_data_that_is_not_as_it_must_be(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(make(tmp_path))


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_languages_without_a_file_are_one_error(folder: Path, tmp_path: Path, kind: str) -> None:
    path = folder if kind == "folder" else tar_of(tmp_path / "sets.tar.gz", FILES)
    settings = EvaluationConfig(eval_tasks=["code_rust", "code_c", "code_go"], eval_data_path=str(path))
    with pytest.raises(InputError) as caught:
        build_tasks(settings)
    assert str(caught.value).startswith(f"{path} holds no file of Rust, Go; languages found: C, Python\n")


def test_polycoders_windows_are_disjoint(folder: Path) -> None:
    with pytest.raises(ConfigError, match="eval_compat polycoder has disjoint windows"):
        measure(folder, eval_compat="polycoder", eval_stride=5)


def test_the_table_of_languages(folder: Path) -> None:
    result = measure(folder, "code_c")
    assert code_table({"code_c": result}) == (
        "| Language | Perplexity | 95% CI | bits/byte | 95% CI | files | seen in training | published |\n"
        "| -------- | ---------- | ------ | --------- | ------ | ----- | ---------------- | --------: |\n"
        f"| C        | {result.metrics['pygments_perplexity']:<10.4g} | -      | 9.0000    | -      | 1     "
        "| not checked      |    2.3464 |\n"
    )


def test_the_lexer_is_the_languages() -> None:
    assert count_language_tokens("C#", "int x = 1;") == count_language_tokens("C#", "int x = 1;\n\n")
    assert count_language_tokens("Python", "x = 1") == 6


def test_what_another_pygments_does_is_said() -> None:
    assert version_effect("TypeScript") == (
        "on 2 MB of other TypeScript code 2.21.0 counts +3.48% tokens, with which 3.6143 reads 3.4614"
    )


def test_the_counts_in_the_documentation_are_those_of_the_warning() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "perplexity.md").read_text(encoding="utf-8")
    for language, (before, after) in MEASURED_TOKENS.items():
        assert f"| {language} | {before:,} | {after:,} | {100 * (after - before) / before:+.2f}% |" in text
