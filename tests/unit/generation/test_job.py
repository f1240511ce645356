"""Records on their way to a file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import GenerationConfig, ParallelismConfig
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import ConfigError, InputError, OutputError
from megatron.neox.generation.decode import Decoder
from megatron.neox.generation.job import plan_job, text_gen_type, write_samples
from megatron.neox.generation.output import LineFile
from megatron.neox.generation.records import Record
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.forked_ranks import run_ranks
from tests.tiny_models import TinyLanguageModel


def settings(**keys: Any) -> GenerationConfig:
    return GenerationConfig(**{"maximum_tokens": 4, "temperature": 1.0, **keys})


def test_an_input_file_decides_the_mode() -> None:
    assert text_gen_type(settings()) == "unconditional"
    assert text_gen_type(settings(sample_input_file="a.py")) == "input-file"
    assert text_gen_type(settings(sample_input_file="a.py", text_gen_type="interactive")) == "interactive"


def test_default_names_of_the_output(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.py"
    prompt.write_text("x")
    assert plan_job(settings(sample_input_file=str(prompt))).output == tmp_path / "prompt.py.output.jsonl"
    assert plan_job(settings()).output == Path("samples.txt")
    job = plan_job(settings(text_gen_type="humaneval", num_samples=100))
    assert job.output == Path("humaneval_sample100.output.jsonl")
    assert len(job.requests) == 16400
    assert [job.requests[number].prompt_number for number in (99, 100)] == [0, 1]


def test_input_file_mode_needs_a_file() -> None:
    with pytest.raises(ConfigError, match="needs sample_input_file"):
        plan_job(settings(text_gen_type="input-file"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompt.py").write_text("é\t= 1\n")
    return tmp_path


def sampling(folder: Path, **keys: Any) -> GenerationConfig:
    """Five samples of the folder's prompt, to out/samples.jsonl."""
    prompt, output = folder / "prompt.py", folder / "out" / "samples.jsonl"
    places = {"sample_input_file": str(prompt), "sample_output_file": str(output)}
    return settings(**places, strip_prompt=False, num_samples=5, **keys)


def test_records_have_the_fields_of_gpt_neox(folder: Path) -> None:
    chosen = sampling(folder, return_logits=True)
    job = plan_job(chosen)
    write_samples(job, Decoder(TinyLanguageModel(), CharLevelTokenizer(), chosen), Workers(), is_main=True)
    lines = job.output.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    record = json.loads(lines[0])
    assert list(record) == [
        "context", "text", "length", "finished", "message", "duration_seconds",
        "sample", "temperature", "top_p", "top_k", "maximum_tokens", "seed", "logprobs",
    ]  # fmt: skip
    assert [json.loads(line)["sample"] for line in lines] == [0, 1, 2, 3, 4]
    assert (record["temperature"], record["top_p"], record["maximum_tokens"]) == (1.0, 0.0, 4)
    assert record["context"] == "é\t= 1\n"
    assert len(record["logprobs"]) == record["length"] == 4
    assert [path.name for path in job.output.parent.iterdir()] == ["samples.jsonl"]


def test_a_prompt_that_is_too_long_is_named_by_its_file_before_any_is_decoded(folder: Path) -> None:
    (folder / "prompts").mkdir()
    (folder / "prompts" / "a.py").write_text("x")
    (folder / "prompts" / "b.py").write_text("y" * 48)
    chosen = settings(sample_input_file=str(folder / "prompts"), generation_batch_size=1)
    decoder = Decoder(TinyLanguageModel(), CharLevelTokenizer(), chosen)
    with pytest.raises(
        InputError, match=r"^prompt .*/b\.py is 48 tokens long, and the model has 48 positions"
    ):
        write_samples(plan_job(chosen), decoder, Workers(), is_main=True)
    assert sorted(path.name for path in folder.iterdir()) == ["prompt.py", "prompts"]


def test_a_record_without_text_is_null() -> None:
    record = json.loads(Record("a", None, 0, True, "why", 0.25).to_json())
    assert record == {
        "context": "a", "text": None, "length": 0, "finished": True, "message": "why", "duration_seconds": 0.25,
    }  # fmt: skip


def write_on_rank(folder: Path, num_copies: int) -> None:
    with ProcessGrid.build(ParallelismConfig()) as grid:
        assert grid.data_size == num_copies
        chosen = sampling(folder, generation_batch_size=2)
        job = plan_job(chosen)
        workers = Workers(grid.data_rank, grid.data_size, grid.groups["data"])
        decoder = Decoder(TinyLanguageModel(), CharLevelTokenizer(), chosen)
        write_samples(job, decoder, workers, is_main=grid.is_main)


def texts(folder: Path) -> list[str]:
    lines = (folder / "out" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_copies_of_the_model_share_the_samples(folder: Path) -> None:
    run_ranks(1, write_on_rank, folder, 1)
    alone = texts(folder)
    assert len(set(alone)) == 5
    run_ranks(3, write_on_rank, folder, 3)
    assert texts(folder) == alone


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "samples.txt"
    output.write_text("older")
    with LineFile(output) as file:
        file.write("one")
        assert file.partial.read_text() == "one\n"
        assert output.read_text() == "older"
    assert output.read_text() == "one\n"
    assert not file.partial.exists()


def test_a_run_broken_off_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "samples.txt"
    output.write_text("older")
    with contextlib.suppress(KeyboardInterrupt), LineFile(output) as file:
        file.write("one")
        raise KeyboardInterrupt
    assert output.read_text() == "older"
    assert (tmp_path / "samples.txt.partial").read_text() == "one\n"


def test_a_run_that_fails_before_the_first_line_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), LineFile(tmp_path / "samples.txt"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"output .*file/samples.txt cannot be written"):
        LineFile(tmp_path / "file" / "samples.txt")
    with pytest.raises(OutputError, match="is a folder; name a file"):
        LineFile(tmp_path)
