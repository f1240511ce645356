"""lm-eval's tasks: which of them eval_tasks takes, and what stands in their way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError, InputError, NeoXError, UnknownPartError
from megatron.neox.evaluation import harness_tasks
from megatron.neox.evaluation.harness import Harness
from megatron.neox.evaluation.harness_model import HarnessModel, SharedWork
from megatron.neox.evaluation.languages import LANGUAGES
from megatron.neox.evaluation.task import build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.harness_tasks import write_tasks
from tests.tiny_models import TinyLanguageModel


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_tasks(tmp_path / "tasks", "tiny_until", "tiny_unsafe", "tiny_broken", "tiny_choice"))


def harness(folder: str, *names: str, **keys: object) -> Harness:
    return Harness(
        EvaluationConfig.model_validate({"eval_tasks": names, "eval_include_path": [folder], **keys})
    )


def test_names_and_patterns(folder: str) -> None:
    """lm-eval's own tasks and ours; a name of ours is ours, and one that a pattern repeats comes once."""
    chosen = harness(folder, "code_c*", "tiny_choice", "perplexity", "arc_challenge", "tiny_c*", "code_c")
    assert chosen.choose() == (
        ["code_c", "code_c#", "code_c++", "perplexity"], ["tiny_choice", "arc_challenge"],
    )  # fmt: skip
    with pytest.raises(UnknownPartError) as caught:
        harness(folder, "arc_chalenge", "perplexty", "nothing_*").choose()
    message = str(caught.value)
    assert (
        "no task is named 'arc_chalenge' (YAML key 'eval_tasks'): neither one of ours, nor one of the 1"
        in message
    )
    assert "that lm-eval 0.4.13 and eval_include_path have\n  did you mean arc_challenge?" in message
    assert "no task is named 'perplexty'" in message
    assert "  did you mean perplexity?\n  ours: code_c, code_c#" in message
    assert "no task is named 'nothing_*'" in message


def test_a_folder_of_tasks_that_is_not_there(folder: str) -> None:
    with pytest.raises(InputError, match="eval_include_path absent: no such folder"):
        harness("absent", "tiny_until").choose()


def test_tasks_that_do_not_load(folder: str) -> None:
    chosen = harness(folder, "tiny_broken", "tiny_choice")
    chosen.choose()
    with pytest.raises(InputError, match=r"lm-eval's task tiny_broken cannot be loaded: .*absent"):
        chosen.load(["tiny_broken", "tiny_choice"])


def test_programs_run_only_where_it_is_allowed(folder: str) -> None:
    refused = harness(folder, "tiny_unsafe")
    refused.choose()
    with pytest.raises(ConfigError, match="lm-eval's tiny_unsafe: runs generated programs on this machine"):
        refused.load(["tiny_unsafe"])
    allowed = harness(folder, "tiny_unsafe", eval_allow_unsafe_code=True)
    allowed.choose()
    allowed.load(["tiny_unsafe"])


class Asked:
    """A request as lm-eval makes it, as far as a model looks at it."""

    def __init__(self, *args: object) -> None:
        self.args = args


def model(batch_size: int = 8) -> HarnessModel:
    settings = EvaluationConfig(eval_batch_size=batch_size)
    return HarnessModel(SharedWork(TinyLanguageModel(scale=2.0), CharLevelTokenizer(), Workers(), settings))


def test_samples_hang_on_their_numbers_and_not_on_the_batch() -> None:
    """Repeats of a prompt differ from each other, and are the same whatever shares their batch."""
    sampled = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
    greedy = {"until": [], "max_gen_toks": 8}
    requests = [
        Asked("one", sampled),
        Asked("one", sampled),
        Asked("two longer", sampled),
        Asked("one", greedy),
    ]
    texts = model(1).generate_until(requests)  # pyright: ignore[reportArgumentType]
    assert model(8).generate_until(requests) == texts  # pyright: ignore[reportArgumentType]
    assert len(set(texts)) == 4


def test_what_has_no_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    options = {"until": ["\n"], "max_gen_toks": 99, "num_beams": 4}
    model().generate_until([Asked("x" * 60, options), Asked("y", options)])  # pyright: ignore[reportArgumentType]
    assert caplog.text.count("generation options that have no effect here: num_beams") == 1
    assert "at most 24 tokens are generated, half of the model's positions; a task asks for 99" in caplog.text


def test_continuations_and_contexts_of_every_length(caplog: pytest.LogCaptureFixture) -> None:
    asked = model()
    whole = asked.loglikelihood([Asked("", "ab"), Asked("c" * 60, "ab"), Asked("c", "")])  # pyright: ignore[reportArgumentType]
    assert whole[2] == (0.0, True)
    kept = asked.loglikelihood([Asked("c" * 47, "ab")])  # pyright: ignore[reportArgumentType]
    assert kept[0][0] == pytest.approx(whole[1][0], rel=1e-6)
    assert "contexts beyond the model's 48 positions lose their beginning" in caplog.text
    assert asked.loglikelihood_rolling([Asked("ab"), Asked("")]) == [  # pyright: ignore[reportArgumentType]
        pytest.approx(whole[0][0], rel=1e-6), 0.0,
    ]  # fmt: skip
    with pytest.raises(InputError, match="a continuation is 49 tokens long, and the model has 48 positions"):
        asked.loglikelihood([Asked("c", "d" * 49)])  # pyright: ignore[reportArgumentType]


def test_logits_that_are_not_numbers_stay_our_error(folder: str) -> None:
    broken = TinyLanguageModel()
    broken.net.get_parameter("layers.06.final_linear.weight").data.fill_(float("nan"))
    settings = EvaluationConfig(eval_tasks=["tiny_choice"], eval_include_path=[folder])
    chosen = Harness(settings)
    chosen.choose()
    chosen.load(["tiny_choice"])
    with pytest.raises(NeoXError, match="not finite numbers"):
        chosen.run(SharedWork(broken, CharLevelTokenizer(), Workers(), settings))


def test_lm_eval_finds_our_tasks_from_anywhere(tmp_path: Path) -> None:
    """In a process that knows nothing of this checkout, where our evaluate.py must not hide `evaluate` either."""
    (tmp_path / "Go").mkdir()
    (tmp_path / "Go" / "a.go").write_text("package a\n")
    probe = (
        "import sys; from lm_eval.tasks import TaskManager\n"
        "TaskManager(include_path=sys.argv[1], include_defaults=False, metadata={'data_path': '.'}).load(['code_go'])\n"
        "import evaluate; print(evaluate.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(Path(harness_tasks.__file__).parent)],
        cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "site-packages" in done.stdout


def test_our_tasks_by_include_path_measure_what_ours_do(tmp_path: Path) -> None:
    """lm-eval, with our YAMLs and whatever model, gives the numbers of our own task."""
    for name, text in {
        "a.py": "def f(x):\r\n    return x\n" * 4,
        "b/c.py": "x = 1\n",
        "blank.py": "\n",
    }.items():
        path = tmp_path / "Python" / "u" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, newline="")
    (tmp_path / "C#" / "u").mkdir(parents=True)
    (tmp_path / "C#" / "u" / "a.cs").write_text("class A {}\n")
    folder = Path(harness_tasks.__file__).parent
    manager = TaskManager(
        include_path=str(folder), include_defaults=False, metadata={"data_path": str(tmp_path)}
    )
    assert manager.all_tasks == sorted(f"code_{suffix}" for suffix in LANGUAGES)
    names = ["code_python", "code_c#"]
    found = simple_evaluate(model=model(), tasks=[*names], task_manager=manager)
    assert found is not None
    results: Any = found.get("results")
    settings = EvaluationConfig(eval_tasks=names, eval_data_path=str(tmp_path))
    for name, task in build_tasks(settings).items():
        ours = task.run(TinyLanguageModel(scale=2.0), CharLevelTokenizer(), Workers()).metrics
        theirs = results[name]
        assert theirs["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], rel=1e-6)
        assert theirs["word_perplexity,none"] == pytest.approx(ours["pygments_perplexity"], rel=1e-5)
        assert theirs["byte_perplexity,none"] == pytest.approx(ours["byte_perplexity"], rel=1e-6)
