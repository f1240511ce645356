"""The perplexity task: which files it reads, what it counts, how it adds up."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.neox.config import EvaluationConfig, ParallelismConfig
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import ConfigError, InputError, NeoXError, UnknownPartError, UserError
from megatron.neox.evaluation.lexing import count_tokens
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.evaluation.tasks.perplexity import Perplexity, bits_per_byte, perplexity
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.forked_ranks import run_ranks
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel


class Uniform(TinyLanguageModel):
    """Every id of the vocabulary is as likely as any other; the rows of padding are likelier."""

    def logits(
        self, token_ids: torch.Tensor, cache: object = None, *, at: Sequence[int] | None = None
    ) -> torch.Tensor:
        assert at is None
        logits = torch.zeros(*token_ids.shape, VOCAB_SIZE + 40)
        logits[..., VOCAB_SIZE:] = 9.0
        return logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text("def f(x):\n    return x\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b.c").write_bytes(b"int main() {\r\n  return 0;\r\n}\n")
    (tmp_path / "odd.zzz").write_text("no lexer has this name, and 1 2 3\n")
    (tmp_path / "blank.py").write_text("\n \n")
    (tmp_path / "latin.py").write_bytes("# Grüße\n".encode("latin-1"))
    (tmp_path / "binary.py").write_bytes(b"\0\1\2")
    return tmp_path


def measure(folder: Path, **keys: Any) -> TaskResult:
    options = keys.pop("options", {})
    settings = EvaluationConfig(eval_data_path=str(folder), **keys)
    return Perplexity(settings, **options).run(Uniform(), CharLevelTokenizer(), Workers())


def test_a_uniform_model_needs_nine_bits_a_byte(folder: Path) -> None:
    result = measure(folder)
    metrics = result.metrics
    assert metrics["bits_per_byte"] == pytest.approx(9.0, rel=1e-6)
    assert metrics["token_perplexity"] == pytest.approx(512, rel=1e-6)
    assert metrics["byte_perplexity"] == pytest.approx(512, rel=1e-6)
    # 23 + 27 (CR is gone) + 34 bytes; the lexed files have 50 of them.
    assert (metrics["num_bytes"], metrics["num_model_tokens"], metrics["num_files"]) == (84, 84, 3)
    assert metrics["num_pygments_tokens"] == 29
    assert metrics["pygments_perplexity"] == pytest.approx(math.exp(50 * math.log(512) / 29), rel=1e-6)
    assert metrics["num_files_without_lexer"] == 1


def test_files_that_are_no_text_are_counted_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = measure(folder)
    assert [row["path"] for row in result.documents] == ["a.py", "deeper/b.c", "odd.zzz"]
    assert result.metrics["num_files_skipped"] == 3
    assert result.config["skipped"] == {"binary": 1, "empty": 1, "not_utf8": 1}
    assert "3 files; left out: 1 binary, 1 empty, 1 not_utf8" in caplog.text


def test_a_row_says_what_the_compressors_make_of_a_file(folder: Path) -> None:
    row = measure(folder).documents[0]
    assert (row["bytes"], row["tokens"], row["pygments_tokens"]) == (23, 23, 13)
    assert (row["gzip_bytes"], row["xz_bytes"]) == (41, 80)
    assert row["gzip_bits_per_byte"] == pytest.approx(41 * 8 / 23)
    assert row["log_likelihood"] == pytest.approx(-23 * math.log(512), rel=1e-6)


def test_options_of_the_task(folder: Path) -> None:
    assert measure(folder, options={"extensions": [".c"]}).metrics["num_files"] == 1
    assert [row["path"] for row in measure(folder, options={"limit": 2}).documents] == ["a.py", "deeper/b.c"]
    assert "gzip_bits_per_byte" not in measure(folder, options={"compressors": False}).metrics


def test_the_window_is_the_model_s_unless_given(folder: Path) -> None:
    assert (measure(folder).config["window"], measure(folder).config["stride"]) == (48, 48)
    result = measure(folder, eval_window=16, eval_stride=4)
    assert (result.config["window"], result.config["stride"]) == (16, 4)


def test_windows_that_cannot_be(folder: Path) -> None:
    with pytest.raises(ConfigError, match="eval_window is 49, and the model has 48 positions"):
        measure(folder, eval_window=49)
    with pytest.raises(ConfigError, match=r"eval_stride is 17, longer than the window \(16\)"):
        measure(folder, eval_window=16, eval_stride=17)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "blank.py").write_text("\n")
    with pytest.raises(InputError, match=r"holds no file that can be scored \(left out: 1 empty\)"):
        measure(tmp_path)
    with pytest.raises(InputError, match="absent does not exist"):
        measure(tmp_path / "absent")
    with pytest.raises(ConfigError, match="eval_data_path is missing"):
        Perplexity(EvaluationConfig())


def test_logits_that_are_not_numbers_are_an_error(folder: Path) -> None:
    model = TinyLanguageModel()
    with torch.no_grad():
        model.net.get_parameter("layers.06.final_linear.weight").fill_(float("nan"))
    task = Perplexity(EvaluationConfig(eval_data_path=str(folder)))
    with pytest.raises(NeoXError, match="not finite numbers"):
        task.run(model, CharLevelTokenizer(), Workers())


def measure_on_rank(folder: Path) -> dict[str, Any]:
    with ProcessGrid.build(ParallelismConfig()) as grid:
        task = Perplexity(EvaluationConfig(eval_data_path=str(folder)))
        workers = Workers(grid.data_rank, grid.data_size, grid.groups["data"])
        result = task.run(TinyLanguageModel(), CharLevelTokenizer(), workers)
        return {**result.metrics, "paths": [row["path"] for row in result.documents]}


def test_copies_of_the_model_share_the_files(folder: Path) -> None:
    alone = run_ranks(1, measure_on_rank, folder)[0]
    one, other = run_ranks(2, measure_on_rank, folder)
    assert one == other
    assert one["paths"] == alone["paths"] == ["a.py", "deeper/b.c", "odd.zzz"]
    assert one["log_likelihood"] == pytest.approx(alone["log_likelihood"], rel=1e-6)
    assert one["num_pygments_tokens"] == alone["num_pygments_tokens"]


def test_tasks_are_chosen_by_name() -> None:
    with pytest.raises(UnknownPartError, match=r"no task is named 'perplexty' .*\n  did you mean perplexity"):
        build_tasks(EvaluationConfig(eval_tasks=["perplexty"]))
    with pytest.raises(ConfigError, match="eval_tasks is missing"):
        build_tasks(EvaluationConfig())


def test_options_of_tasks_are_checked(folder: Path) -> None:
    keys = {"eval_tasks": ["perplexity"], "eval_data_path": str(folder)}
    with pytest.raises(ConfigError, match="eval_task_options holds options of perplexty, which is not among"):
        build_tasks(EvaluationConfig(**keys, eval_task_options={"perplexty": {}}))
    with pytest.raises(UserError, match="task 'perplexity' has no option limmit; did you mean limit"):
        build_tasks(EvaluationConfig(**keys, eval_task_options={"perplexity": {"limmit": 3}}))


def test_the_formulas() -> None:
    assert bits_per_byte(-math.log(2) * 12, 4) == pytest.approx(3.0)
    assert perplexity(-math.log(7) * 5, 5) == pytest.approx(7.0)
    assert perplexity(-1.0, 0) is None
    assert perplexity(-1e9, 1) is None


def test_pygments_counts_white_space_and_a_final_newline() -> None:
    assert count_tokens("a.py", "x = 1") == 6
    assert count_tokens("a.zzz", "x = 1") is None
