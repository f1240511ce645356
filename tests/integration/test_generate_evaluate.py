"""generate.py and evaluate.py as users start them, on a tiny checkpoint."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deepspeed.pipe  # noqa: F401  imported before the rank is forked, so that it need not
import pytest
import torch
from torch import Tensor

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.engine.build import build_training_engine
from megatron.neox.engine.checkpoint import save_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.evaluation.run import run as evaluate
from megatron.neox.generation.run import run as generate
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.forked_ranks import run_ranks
from tests.harness_tasks import write_tasks

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "def add(one, two):\n\treturn one + two\n\n\n"
KEYS: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": 64,
    "max_position_embeddings": 64,
    "pos_emb": "rotary",
    "no_weight_tying": True,
    "precision": "fp32",
    "optimizer": {"type": "adam", "params": {"lr": 1e-2}},
    "train_iters": 60,
    "train_micro_batch_size_per_gpu": 8,
    "gradient_accumulation_steps": 1,
    "tokenizer_type": "CharLevelTokenizer",
}

RUN = {**KEYS, "sample_output_file": "of_the_run.jsonl"}


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of the sentence, again and again."""
    text = torch.tensor(list((SENTENCE * 4).encode()))
    for step in itertools.count():
        starts = [(step * 8 + row) * 7 % len(SENTENCE) for row in range(8)]
        rows = torch.stack([text[start : start + 65] for start in starts])
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def train(folder: Path) -> None:
    config = Config.from_flat(KEYS)
    with ProcessGrid.build(config.parallelism) as grid:
        engine = build_training_engine(config, grid, padded_vocab_size=512)
        stream = batches()
        for _ in range(60):
            engine.train_step(stream)
        save_checkpoint(
            engine, folder, state={}, config_keys=RUN, tokenizer=CharLevelTokenizer().fingerprint()
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints/, small.yml and a folder of files."""
    folder = tmp_path_factory.mktemp("run")
    run_ranks(1, train, folder / "checkpoints")
    (folder / "small.yml").write_text(json.dumps({**KEYS, "load": "checkpoints"}))
    (folder / "files").mkdir()
    (folder / "files" / "add.py").write_text(SENTENCE * 5)
    (folder / "files" / "other.py").write_text("import os\n\nprint(os.name)\n")
    (folder / "files" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    return folder


def deepy(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), *arguments],
        cwd=folder, env=environment, input=typed, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def settings(**keys: Any) -> list[str]:
    return [part for key, value in keys.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def texts(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def test_an_input_file_is_continued(trained: Path) -> None:
    (trained / "prompt.py").write_text("def add(one")
    done = deepy(trained, "generate.py", "small.yml", *settings(
        sample_input_file="prompt.py", maximum_tokens=25, num_samples=2,
    ))  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (trained / "prompt.py.output.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["context"] for record in records] == ["def add(one"] * 2
    assert [record["text"] for record in records] == [", two):\n\treturn one + two"] * 2
    assert "wrote 2 samples to prompt.py.output.jsonl" in done.stderr


def test_samples_without_a_prompt_are_the_same_every_time(trained: Path) -> None:
    keys = {"temperature": 1.0, "num_samples": 3, "maximum_tokens": 10, "generation_batch_size": 2}
    done = deepy(trained, "generate.py", "small.yml", *settings(**keys))
    assert done.returncode == 0, done.stderr
    drawn = texts(trained / "samples.txt")
    assert len(set(drawn)) == 3
    run_ranks(1, run_on_rank, generate, trained, {**keys, "sample_output_file": "again.jsonl"})
    assert texts(trained / "again.jsonl") == drawn


def test_a_runs_own_outputs_are_left_alone(trained: Path) -> None:
    """With no model in the config the run's is taken, but not the places that the run itself has written to."""
    done = deepy(trained, "generate.py", *settings(load="checkpoints", maximum_tokens=2))
    assert done.returncode == 0, done.stderr
    assert (
        "note: the model's config is taken from checkpoints/global_step60/configs/config.yml" in done.stderr
    )
    assert "wrote 1 samples to samples.txt" in done.stderr
    assert not (trained / "of_the_run.jsonl").exists()


def test_prompts_are_typed(trained: Path) -> None:
    done = deepy(
        trained, "generate.py", "small.yml", *settings(text_gen_type="interactive", maximum_tokens=12),
        typed="two):\\n\\tret\n\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Context prompt >>> Generated Text: urn one + tw\n[12 tokens" in done.stdout
    assert "The prompt is empty" in done.stdout


def run_on_rank(run: Callable[[Config], int], folder: Path, keys: dict[str, Any]) -> None:
    os.chdir(folder)
    assert run(Config.from_flat({**KEYS, "load": "checkpoints", **keys})) == 0


@pytest.mark.long
def test_two_tensor_ranks_write_the_same_file(trained: Path) -> None:
    (trained / "split.py").write_text("return one")
    keys = {"sample_input_file": "split.py", "maximum_tokens": 20, "temperature": 0.7, "num_samples": 3}
    run_ranks(1, run_on_rank, generate, trained, keys)
    alone = texts(trained / "split.py.output.jsonl")
    (trained / "split.py.output.jsonl").unlink()
    done = deepy(trained, "generate.py", "small.yml", *settings(**keys, model_parallel_size=2))
    assert done.returncode == 0, done.stderr
    assert texts(trained / "split.py.output.jsonl") == alone
    assert len(alone) == 3


def test_perplexity_of_a_folder(trained: Path) -> None:
    keys = settings(eval_tasks=["perplexity"], eval_data_path="files", eval_results_path="out/results.json")
    done = deepy(trained, "evaluate.py", "small.yml", *keys)
    assert done.returncode == 0, done.stderr
    assert "left out: 1 binary" in done.stderr
    content = json.loads((trained / "out" / "results.json").read_text())
    metrics = content["results"]["perplexity"]
    assert metrics["num_files"] == 2
    assert content["config"]["checkpoint"] == "checkpoints/global_step60"
    rows = (trained / "out" / "results_perplexity.jsonl").read_text().splitlines()
    learnt, other = (json.loads(row) for row in rows)
    assert learnt["path"] == "add.py"
    assert learnt["bits_per_byte"] < 1 < 4 < other["bits_per_byte"]
    assert "| perplexity | 1       | bits_per_byte " in done.stdout
    assert (trained / "out" / "results.md").read_text() in done.stdout
    assert "- eval_data_path: files\n- window: 64\n- stride: 64\n- context: end-of-document" in done.stdout


@pytest.mark.parametrize("grid", [{"pipe_parallel_size": 2}, {"model_parallel_size": 2}])
def test_every_grid_measures_the_same(trained: Path, grid: dict[str, int]) -> None:
    """Two copies of the model (the pipeline is folded), and one that is split."""
    keys = {"eval_tasks": ["perplexity"], "eval_data_path": "files"}
    run_ranks(1, run_on_rank, evaluate, trained, {**keys, "eval_results_path": "one.json"})
    run_ranks(2, run_on_rank, evaluate, trained, {**keys, "eval_results_path": "two.json", **grid})
    one, two = (
        json.loads((trained / name).read_text())["results"]["perplexity"] for name in ("one.json", "two.json")
    )
    assert two["log_likelihood"] == pytest.approx(one["log_likelihood"], rel=1e-6)
    assert two["num_model_tokens"] == one["num_model_tokens"] == 221


def test_languages_and_lm_evals_tasks_beside_each_other(trained: Path) -> None:
    """One command, one results file: ours by pattern, theirs by name, files seen in training counted."""
    files = {"Python/ann/add.py": SENTENCE * 5, "Python/bob/os.py": "import os\n", "C/a/m.c": "int m;\n"}
    for name, text in files.items():
        path = trained / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    digest = hashlib.sha256(b"import os\n").hexdigest()
    (trained / "index").write_text(f"Python__bob__web__os.py\t{digest}\n")
    write_tasks(trained / "tasks", "tiny_choice", "tiny_rolling", "tiny_until")
    done = deepy(
        trained, "evaluate.py", "small.yml", "--eval_tasks", "code_python", "code_c", "tiny_*",
        *settings(
            eval_data_path="code", eval_contamination_index="index", eval_include_path=["tasks"], eval_limit=2,
            eval_num_fewshot=1, eval_results_path="both/results.json",
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((trained / "both" / "results.json").read_text())
    python = content["results"]["code_python"]
    assert (python["num_files"], python["num_files_seen_in_training"]) == (2, 1)
    assert content["results"]["code_c"]["num_files_seen_in_training"] == 0
    assert set(content["results"]["tiny_choice"]) >= {"acc,none", "acc_stderr,none"}
    assert content["n-samples"]["tiny_until"] == {"original": 4, "effective": 2}
    assert content["n-shot"]["tiny_choice"] == 1
    assert content["versions"]["tiny_choice"] == 1.5
    assert content["lm_eval_version"] == "0.4.13"
    assert content["config"]["checkpoint"] == "checkpoints/global_step60"
    assert set(content["documents"]) == {"code_python", "code_c", "tiny_choice", "tiny_rolling", "tiny_until"}
    rows = [
        json.loads(line)
        for line in (trained / "both" / content["documents"]["tiny_until"]).read_text().splitlines()
    ]
    assert len(rows) == 2
    assert set(rows[0]) >= {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "doc_hash"}
    learnt = content["results"]["code_python"]["bits_per_byte"]
    assert python["pygments_perplexity"] < 1000
    assert f"| Python   | {python['pygments_perplexity']:.4f} " in done.stdout
    assert 0 < learnt < 8
    assert "| tiny_choice  | 1.5     | acc " in done.stdout
    assert "How code_python, code_c were measured:\n" in done.stdout


@pytest.mark.parametrize("grid", [{"pipe_parallel_size": 2}, {"model_parallel_size": 2}])
def test_every_grid_answers_lm_eval_and_measures_code_the_same(trained: Path, grid: dict[str, int]) -> None:
    names = ["tiny_choice", "tiny_rolling", "tiny_until"]
    folder = write_tasks(trained / "local_tasks", *names)
    (trained / "pair" / "Python").mkdir(parents=True, exist_ok=True)
    for number in range(3):
        (trained / "pair" / "Python" / f"{number}.py").write_text(SENTENCE * (number + 1))
    digest = hashlib.sha256(SENTENCE.encode()).hexdigest()
    (trained / "pair_index").write_text(f"Python__a__b__0.py\t{digest}\n")
    keys = {
        "eval_tasks": [*names, "code_python"], "eval_include_path": [str(folder)], "eval_batch_size": 2,
        "eval_data_path": "pair", "eval_contamination_index": "pair_index",
    }  # fmt: skip
    run_ranks(1, run_on_rank, evaluate, trained, {**keys, "eval_results_path": "lm_one.json"})
    run_ranks(2, run_on_rank, evaluate, trained, {**keys, "eval_results_path": "lm_two.json", **grid})
    one, two = (json.loads((trained / f"lm_{name}.json").read_text())["results"] for name in ("one", "two"))
    assert one["code_python"]["num_files_seen_in_training"] == 1
    for name in keys["eval_tasks"]:
        for metric, value in one[name].items():
            assert two[name][metric] == (
                pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            )
    texts_of = [
        [
            json.loads(line)["resps"]
            for line in (trained / f"lm_{name}_tiny_until.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    ]
    assert texts_of[0] == texts_of[1]
    assert any(", two):" in row[0][0] for row in texts_of[0])


def test_without_latest_the_newest_checkpoint_is_taken_and_said(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "latest").unlink()
    done = deepy(
        tmp_path, "generate.py", str(trained / "small.yml"), *settings(maximum_tokens=2, num_samples=1)
    )
    assert done.returncode == 0, done.stderr
    assert "latest" in done.stderr
    assert "global_step60" in done.stderr


@pytest.mark.parametrize("door", ["generate.py", "evaluate.py"])
def test_no_checkpoint_is_an_error_that_names_the_folder(trained: Path, tmp_path: Path, door: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    keys = settings(eval_tasks=["perplexity"], eval_data_path=str(tmp_path / "a.py"))
    done = deepy(tmp_path, door, str(trained / "small.yml"), *keys)
    assert done.returncode == 2
    assert "CheckpointError\n" in done.stderr
    assert "checkpoints holds no checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".txt", ".json", ".md")] == []


@pytest.mark.parametrize(
    ("door", "keys", "message"),
    [
        ("generate.py", {"sample_input_file": "absent.py"}, "sample_input_file absent.py does not exist"),
        (
            "evaluate.py",
            {"eval_tasks": ["perplexity"], "eval_data_path": "absent"},
            "eval_data_path absent does not exist",
        ),
        (
            "evaluate.py",
            {
                "eval_tasks": ["perplexity"],
                "eval_data_path": "files",
                "eval_results_path": "small.yml/r.json",
            },
            "output small.yml/r.json cannot be written: ",
        ),
        (
            "evaluate.py",
            {"eval_tasks": ["code_rust", "code_go"], "eval_data_path": "files"},
            "files holds no file of Rust, Go; languages found: none",
        ),
        (
            "evaluate.py",
            {
                "eval_tasks": ["perplexity"],
                "eval_data_path": "files",
                "eval_contamination_index": "small.yml",
            },
            "eval_contamination_index is given, and none of eval_tasks is a code_* task",
        ),
    ],
)
def test_mistakes(trained: Path, door: str, keys: dict[str, Any], message: str) -> None:
    done = deepy(trained, door, "small.yml", *settings(**keys))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_py_does_not_hide_the_package_evaluate(trained: Path) -> None:
    """`evaluate` is Hugging Face's package, which lm-eval imports; ours is a script beside it."""
    probe = (
        f"import sys, importlib.util; sys.argv = [sys.argv[1]]; sys.path.insert(0, {str(ROOT)!r})\n"
        "import deepy; deepy.enter(); found = importlib.util.find_spec('evaluate')\n"
        "print(found.origin if found else 'absent')"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(ROOT / "evaluate.py")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert str(ROOT / "evaluate.py") not in done.stdout
