"""Other people's models, measured here and by what they were made for: lm-eval's `hf` and transformers' generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf as gguf_package
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from megatron.neox.config import Config, EvaluationConfig, GenerationConfig, TokenizerConfig
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.evaluation.compatibility import polycoder_window
from megatron.neox.evaluation.evaluated import EvaluatedModel, load_evaluated
from megatron.neox.evaluation.harness import Harness
from megatron.neox.evaluation.harness_model import SharedWork
from megatron.neox.evaluation.task import build_tasks
from megatron.neox.evaluation.tasks.code_perplexity import CodePerplexity
from megatron.neox.evaluation.tasks.perplexity import Perplexity
from megatron.neox.generation.decode import generate
from megatron.neox.generation.workers import Workers
from megatron.neox.layouts import gguf, huggingface
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.layouts.stored import StoredModel
from tests.engine_models import code_tokenizer, random_model
from tests.harness_tasks import write_tasks
from tests.huggingface_folders import NUM_POSITIONS, save_model

FAMILIES = ("gpt2", "gpt_neox", "llama")
CODE = "import os\n\n\ndef first(names):\n    for name in names:\n        return name  # é ☕\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each family, the llama with a bos besides eos; and code/Python."""
    root = tmp_path_factory.mktemp("models")
    for name in FAMILIES:
        save_model(root / name, name, bos="<s>" if name == "llama" else None)
    files = root / "code" / "Python"
    files.mkdir(parents=True)
    for number, text in enumerate((CODE, CODE * 7, "x = 1\n")):
        (files / f"{number}.py").write_text(text)
    return root


def loaded(path: Path, kind: str = "hf", **keys: Any) -> EvaluatedModel:
    model = {"type": kind, "path": str(path)}
    config = Config.from_flat({"evaluated_model": model, "precision": "fp32", **keys})
    with ProcessGrid.build(config.parallelism) as grid:
        return load_evaluated(config, grid)


@pytest.mark.parametrize("name", ["gpt2", pytest.param("gpt_neox", marks=pytest.mark.long), "llama"])
def test_lm_evals_own_model_gives_the_same(folders: Path, tmp_path: Path, name: str) -> None:
    """Log-likelihoods of our code task against lm-eval's rolling ones, and every kind of request of its own tasks."""
    theirs = pytest.importorskip("lm_eval.models.huggingface", exc_type=ImportError)
    other = theirs.HFLM(pretrained=str(folders / name), device="cpu", batch_size=2, dtype="float32")
    evaluated = loaded(folders / name)
    settings = EvaluationConfig(
        eval_tasks=["code_python"], eval_data_path=str(folders / "code"), eval_batch_size=3
    )
    task: Any = build_tasks(settings)["code_python"]
    rows = task.run(evaluated.model, evaluated.tokenizer, Workers()).documents
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(file.text,), idx=0)
        for file in task.files
    ]
    assert [row["log_likelihood"] for row in rows] == pytest.approx(
        other.loglikelihood_rolling(requests, disable_tqdm=True), rel=1e-5
    )
    names = ["tiny_choice", "tiny_rolling", "tiny_until"]
    chosen = EvaluationConfig(
        eval_tasks=names, eval_include_path=[str(write_tasks(tmp_path, *names))], eval_num_fewshot=1
    )
    found = []
    for model in (SharedWork(evaluated.model, evaluated.tokenizer, Workers(), chosen), other):
        harness = Harness(chosen)
        harness.choose()
        harness.load(names)
        found.append(harness.run(model) if isinstance(model, SharedWork) else harness.run_with(model))
    for task_name in names:
        for metric, value in found[1]["results"][task_name].items():
            expected = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            assert found[0]["results"][task_name][metric] == expected, metric
        mine, others = ([row["resps"] for row in side["samples"][task_name]] for side in found)
        if task_name == "tiny_until":
            assert mine == others


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("recompute", [False, True])
def test_greedy_generations_are_those_of_transformers(folders: Path, name: str, recompute: bool) -> None:
    """A batch of prompts of several lengths, one of which ends early, against generate() of one at a time."""
    evaluated = loaded(folders / name)
    prompts = ["def first(", "import os\n\n\ndef f(x):\n", "x", "class Pair:\n    first = 1\n"]
    said = [greedy(folders / name, prompt) for prompt in prompts]
    stop = next(text for text in map(evaluated.tokenizer.decode, zip(said[0][3:])) if text.isascii())
    settings = GenerationConfig(maximum_tokens=20, stop=[stop], generation_batch_size=4, recompute=recompute)
    records = list(generate(evaluated.model, evaluated.tokenizer, prompts, settings))
    lengths = [record.length for record in records]
    assert lengths[0] < 20, "no row ends before another"
    assert [list(record.token_ids) for record in records] == [ids[:n] for ids, n in zip(said, lengths)]
    for record, ids in zip(records, said):
        assert record.text == evaluated.tokenizer.decode(ids).split(stop)[0]


def greedy(folder: Path, prompt: str) -> list[int]:
    """The 20 ids that transformers says after a prompt."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    mask = torch.ones_like(ids)
    options = {
        "do_sample": False,
        "max_new_tokens": 20,
        "min_new_tokens": 20,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    return model.generate(ids, attention_mask=mask, **options)[0, ids.shape[1] :].tolist()


def test_validation_loss_joins_files_by_the_bos(folders: Path) -> None:
    """As CodeParrot's does; the llama here has a bos besides its eos."""
    evaluated = loaded(folders / "llama")
    settings = EvaluationConfig(
        eval_data_path=str(folders / "code"),
        eval_tasks=["validation_loss"],
        eval_task_options={"validation_loss": {"seq_length": NUM_POSITIONS}},
    )
    told = build_tasks(settings)["validation_loss"].run(evaluated.model, evaluated.tokenizer, Workers())
    model: Any = AutoModelForCausalLM.from_pretrained(folders / "llama")
    tokenizer: Any = AutoTokenizer.from_pretrained(folders / "llama")
    ids: list[int] = []
    for text in (CODE, CODE * 7, "x = 1\n"):
        ids += [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.bos_token_id]
    whole = torch.tensor(ids[: len(ids) // NUM_POSITIONS * NUM_POSITIONS]).view(-1, NUM_POSITIONS)
    with torch.no_grad():
        assert told.metrics["loss"] == pytest.approx(model(whole, labels=whole).loss.item(), rel=1e-5)
    assert told.config["context"].endswith("files joined by the tokenizer's bos, <s>")


def test_a_checkpoint_exported_has_the_perplexity_that_it_had(tmp_path: Path) -> None:
    """The same weights as a checkpoint of ours, as a folder of transformers, and as a GGUF of fp32."""
    tokenizer = code_tokenizer()
    (tmp_path / "tokenizer.json").write_text(tokenizer.engine.to_str())  # pyright: ignore[reportAttributeAccessIssue]
    stored = random_model(activation="gelu_tanh")
    section = TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(tmp_path / "tokenizer.json"))
    stored = StoredModel(stored.kind, stored.path, stored.model, section, stored.read_layer, 1)
    write_checkpoint(stored, tmp_path / "checkpoints")
    (tmp_path / "hf").mkdir()
    huggingface.write_folder(stored, tmp_path / "hf", tokenizer=tokenizer)
    gguf.write_file(stored, tmp_path / "model.gguf", tokenizer=tokenizer, quantization="f32")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.py").write_text(CODE * 9)
    keys = {
        **stored.model.model_dump(exclude_unset=True),
        **section.model_dump(exclude_unset=True),
        "precision": "fp32",
    }
    config = Config.from_flat({**keys, "load": str(tmp_path / "checkpoints")})
    with ProcessGrid.build(config.parallelism) as grid:
        sides = [load_evaluated(config, grid)]
    sides += [loaded(tmp_path / "hf"), loaded(tmp_path / "model.gguf", "gguf")]
    task = Perplexity(EvaluationConfig(eval_data_path=str(tmp_path / "files")), compressors=False)
    found = [task.run(side.model, side.tokenizer, Workers()).metrics for side in sides]
    assert [side.described["model"] for side in sides] == ["neox", "hf", "gguf"]
    assert found[0]["num_model_tokens"] == found[1]["num_model_tokens"] == found[2]["num_model_tokens"]
    for other in found[1:]:
        assert other["log_likelihood"] == pytest.approx(found[0]["log_likelihood"], rel=1e-5)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K"])
def test_quantised_weights_count_as_the_numbers_that_they_stand_for(tmp_path: Path, kind: str) -> None:
    """The same log p as a GGUF of fp32 with those numbers. The package writes no K-quants: blocks are drawn."""
    tokenizer = code_tokenizer()
    stored = random_model(activation="gelu_tanh", intermediate_size=256)
    package: Any = gguf_package
    gguf.write_file(stored, tmp_path / "plain.gguf", tokenizer=tokenizer, quantization="f32")
    names = [f"blk.{number}.ffn_down.weight" for number in range(stored.model.num_layers)]
    blocks = {name: drawn_blocks(package, kind, shape=(stored.model.hidden_size, 256)) for name in names}
    quantised = package.GGMLQuantizationType[kind]
    numbers = {name: package.quants.dequantize(data, quantised) for name, data in blocks.items()}
    plain = tmp_path / "plain.gguf"
    files = {
        "plain": plain,
        "blocks": rewritten(package, plain, tmp_path / "blocks.gguf", blocks, quantised),
        "numbers": rewritten(package, plain, tmp_path / "numbers.gguf", numbers, None),
    }
    (tmp_path / "a.py").write_text(CODE * 9)
    task = Perplexity(EvaluationConfig(eval_data_path=str(tmp_path / "a.py")), compressors=False)
    sides = {name: loaded(file, "gguf") for name, file in files.items()}
    found = {name: task.run(side.model, side.tokenizer, Workers()).metrics for name, side in sides.items()}
    assert found["blocks"] == found["numbers"]
    assert kind in sides["blocks"].described["kind"]
    assert found["blocks"] != found["plain"]


def drawn_blocks(package: Any, kind: str, *, shape: tuple[int, int]) -> Any:
    """Bytes [rows, bytes of a row] of blocks of a kind whose scales, fp16, are moderate."""
    block, size = package.GGML_QUANT_SIZES[package.GGMLQuantizationType[kind]]
    data = np.random.Generator(np.random.PCG64(5)).integers(
        256, size=(shape[0], shape[1] // block, size), dtype=np.uint8
    )
    scale = np.frombuffer(np.float16(1e-3).tobytes(), np.uint8)
    for place in {"Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [size - 2]}[kind]:
        data[..., place : place + 2] = scale
    return data.reshape(shape[0], -1)


def rewritten(package: Any, source: Path, path: Path, tensors: dict[str, Any], kind: Any) -> Path:
    """The file with some tensors replaced, of another kind; all keys as they are."""
    reader = package.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = package.GGUFWriter(path, architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        replaced = tensors.get(tensor.name)
        if replaced is None:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            writer.add_tensor(tensor.name, replaced, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_rows_without_meaning_have_no_share(tmp_path: Path) -> None:
    """The fork took the logits of Hugging Face's models by the tokenizer's size; lm-eval takes all of them."""
    evaluated = loaded(save_model(tmp_path / "wide", "gpt_neox", more_rows=20))
    logits = evaluated.model.logits(torch.tensor([[1, 2, 3]]))
    assert logits.shape == (1, 3, evaluated.tokenizer.vocab_size)


def test_polycoders_protocol_gives_others_their_whole_context(folders: Path) -> None:
    evaluated = loaded(folders / "gpt2")
    assert polycoder_window(evaluated.model) == NUM_POSITIONS
    settings = EvaluationConfig(
        eval_tasks=["code_python"], eval_data_path=str(folders / "code"), eval_compat="polycoder"
    )
    task = build_tasks(settings)["code_python"]
    assert isinstance(task, CodePerplexity)
    told = task.run(evaluated.model, evaluated.tokenizer, Workers())
    assert told.config["window"] == NUM_POSITIONS
    assert "the tokenizer's eos, <|endoftext|>, before each file" in told.config["context"]
