"""tools/tokenize_data.py by its commands: those of the seed, files of the hub, kills, and training on what it makes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tokenizers import AddedToken

from megatron.neox.tokenizers import HFTokenizer
from megatron.neox.tokenizers.train import train_vocabulary
from tests.integration import hub as model_hub
from tests.integration.origin import Origin, serving
from tests.integration.training_case import ROOT, metrics, train, write_config

NAME = "train-00000-of-00257.parquet"
LIBRARY = Path(sysconfig.get_path("stdlib"))
TOOL = str(ROOT / "tools" / "tokenize_data.py")
FIRST, END = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"


def run(*words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **variables},
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of The Stack's file: a column content among others, nulls in it."""
    texts = [path.read_text() for path in sorted(LIBRARY.glob("[a-s]*.py"))[:60]]
    path = tmp_path_factory.mktemp("stack") / NAME
    table = pa.table({"size": [1] * 61, "content": [*texts, None], "licenses": [["MIT"]] * 61})
    parquet.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of the original's tokenizer: a first token is asked for, and the end fills samples."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [path.read_text() for path in sorted(LIBRARY.glob("a*.py"))[:6]]
    engine = train_vocabulary(texts, vocab_size=600)
    engine.add_special_tokens([AddedToken(FIRST, special=True), AddedToken(END, special=True)])
    saved = json.loads(engine.to_str())
    saved["model"]["vocab"]["<end>"] = saved["model"]["vocab"].pop("<|endoftext|>")
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] in (FIRST, END)]
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"add_bos_token": True, "bos_token": {"content": FIRST}, "eos_token": END, "pad_token": END}
        )
    )
    return folder


@contextmanager
def original_tokenizer(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which the hub has the original's tokenizer."""
    with model_hub.serve(model_hub.Hub({"deepseek-ai/deepseek-coder-33b-base": folder})) as served:
        yield {"HF_ENDPOINT": served.address, "HF_HOME": str(folder / "cache")}


def test_both_commands_of_the_seed_work_to_the_letter(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(source)
    with original_tokenizer(tokenizer) as variables:
        words = [TOOL, "--data_file", NAME, "--tokenization_folder", "tokenized_data"]
        done = run(*words, cwd=tmp_path, **variables)
        assert done.returncode == 0, done.stderr
        words = [TOOL, "--data_file", NAME, "--tokenization_folder", "validation_512", "--seq_length", "512",
                 "--starting_character", "100000000", "--chars_to_tokenize", "2000000"]  # fmt: skip
        past = run(*words, cwd=tmp_path, **variables)
        assert past.returncode == 2
        assert "--starting_character 100000000 is past the end: its 61 rows hold" in past.stderr
        words[words.index("100000000")] = "400000"
        valid = run(*words, "--valid-of", "tokenized_data", cwd=tmp_path, **variables)
        assert valid.returncode == 2
        assert "overlap those of tokenized_data, 0 to" in valid.stderr
        valid = run(*words, cwd=tmp_path, **variables)
        assert valid.returncode == 0, valid.stderr
    assert sorted(os.listdir(tmp_path / "tokenized_data")) == [
        "dump-0.pkl",
        "dump-meta_data.json",
        "dump-origin.yml",
    ]
    engine = HFTokenizer(vocab_file=str(tokenizer / "tokenizer.json"))
    first, end = engine.engine.token_to_id(FIRST), engine.engine.token_to_id(END)
    told: list[str] = []
    line = " ".join(text for text in parquet.read_table(source)["content"].to_pylist() if text is not None)
    for folder, text, length in (
        ("tokenized_data", line, 1536),
        ("validation_512", line[400000:2400000], 512),
    ):
        ids = [first, *engine.encode(text)]
        samples = [ids[at : at + length] for at in range(0, len(ids) - 1000, length)]
        samples[-1] += [end] * (length - len(samples[-1]))
        assert pickle.loads((tmp_path / folder / "dump-0.pkl").read_bytes()) == samples
        counts = {"num_samples": len(samples), "num_tokens": len(samples) * length}
        assert json.loads((tmp_path / folder / "dump-meta_data.json").read_text()) == {"dump-0.pkl": counts}
        told += [
            f"Loaded {len(samples)} vectors from {folder}/dump-0.pkl\n",
            f"{len(samples)} torch.Size([{length}])\n",
        ]
    code = (
        "from pickle_dataset import PickledTrainerDataset\nfor folder in ('tokenized_data', 'validation_512'):\n"
        "    ptd = PickledTrainerDataset([folder])\n    print(len(ptd), ptd[0]['input_ids'].shape)"
    )
    read = run("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert all(line in read.stdout for line in told), read.stdout + read.stderr
    assert "NOTE: --min_sample_length 1000 is not below --seq_length 512" in valid.stderr


GATED = "/datasets/bigcode/the-stack/resolve/main/data/c/"
TOKEN = "hf_verysecret"


@contextmanager
def gated_hub(origin: Origin, seen: list[str | None]) -> Iterator[str]:
    """A hub that gives files to one token only, and sends readers on to `origin`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            seen.append(given)
            content = origin.files.get(self.path)
            status = (
                (401 if given is None else 403)
                if given != f"Bearer {TOKEN}"
                else 404
                if content is None
                else 302
            )
            self.send_response(status)
            if status == 302 and content is not None:
                self.send_header("Location", origin.url + self.path)
                self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_of_the_hub_is_fetched_and_resumed(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    content, seen = source.read_bytes(), []
    origin = Origin({GATED + NAME: content}, faults=[len(content) // 3])
    path = f"hf://datasets/bigcode/the-stack/data/c/{NAME}"
    words = [TOOL, "--tokenizer", tokenizer, "--tokenization_folder", "out", "--data_file"]
    with serving(origin), gated_hub(origin, seen) as address:
        variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        page = f"accept its terms at {address}/datasets/bigcode/the-stack with your account"
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "letter").touch()
        early = run(*words, path, "--tokenization_folder", "taken", cwd=tmp_path, **variables)
        assert "OutputError\ntaken exists already" in early.stderr
        assert not (tmp_path / "downloads").exists()  # what is wrong whatever arrives is told before
        nobody = run(*words, path, cwd=tmp_path, **variables)
        assert nobody.returncode == 2
        assert "(HTTP 401); the dataset is gated or private" in nobody.stderr
        assert page in nobody.stderr
        assert "set HF_TOKEN" in nobody.stderr
        done = run(*words, path, cwd=tmp_path, HF_TOKEN=TOKEN, **variables)
    assert done.returncode == 0, done.stderr
    assert origin.ranges() == [None, f"bytes={len(content) // 3}-"]
    assert TOKEN not in "".join(ran.stdout + ran.stderr for ran in (nobody, done))
    assert (tmp_path / "downloads" / "bigcode" / "the-stack" / "data" / "c" / NAME).read_bytes() == content


@pytest.mark.long
def test_what_the_hub_refuses_and_what_is_here_already(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    origin = Origin({GATED + NAME: source.read_bytes()})
    path = f"hf://datasets/bigcode/the-stack/data/c/{NAME}"
    words = [TOOL, "--tokenizer", tokenizer, "--tokenization_folder", "out", "--data_file"]
    with serving(origin), gated_hub(origin, []) as address:
        variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        other = run(*words, path, cwd=tmp_path, HF_TOKEN="hf_other", **variables)
        assert "(HTTP 403)" in other.stderr
        assert f"accept its terms at {address}/datasets/bigcode/the-stack" in other.stderr
        absent = run(*words, path + "x", cwd=tmp_path, HF_TOKEN=TOKEN, **variables)
        assert "there is no such file on the hub (HTTP 404)" in absent.stderr
        done = run(*words, path, cwd=tmp_path, HF_TOKEN=TOKEN, **variables)
        assert done.returncode == 0, done.stderr
    said = "".join(ran.stdout + ran.stderr for ran in (other, absent, done))
    assert TOKEN not in said
    assert "hf_other" not in said
    again = run(*words, path, "--overwrite", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("hf://models/a/b/c", marks=pytest.mark.long),
        pytest.param("hf://datasets/a/b", marks=pytest.mark.long),
        "hf://datasets/a/b/../c/d",
    ],
)
def test_other_paths_are_refused(path: str, tokenizer: Path, tmp_path: Path) -> None:
    words = [TOOL, "--tokenizer", tokenizer, "--tokenization_folder", "out", "--data_file", path]
    refused = run(*words, cwd=tmp_path)
    assert refused.returncode == 2
    assert (
        f"{path} is no file of a dataset on the hub; it is written as hf://datasets/bigcode" in refused.stderr
    )


def kill_and_resume(source: Path, tokenizer: Path, folder: Path, kills: int, seed: int) -> None:
    """SIGKILL at random instants until it is through; the same bytes as a run that nobody touched."""
    folder.mkdir(exist_ok=True)
    words = [sys.executable, TOOL, "--data_file", str(source), "--tokenizer", str(tokenizer), "--chunk_size", "20000",
             "--seq_length", "64", "--min_sample_length", "5", "--max_dump_size", "40"]  # fmt: skip
    whole, start = folder / "whole", time.monotonic()
    if not whole.exists():
        subprocess.run([*words, "--tokenization_folder", str(whole)], check=True, capture_output=True)
    seconds = time.monotonic() - start
    source_of_instants, out = random.Random(seed), folder / "out"
    for number in range(kills):
        process = subprocess.Popen(
            [*words, "--workers", str(1 + number % 2), "--tokenization_folder", str(out), "--resume"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(source_of_instants.uniform(0.3 * seconds, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        names = sorted(os.listdir(folder))
        assert set(names) <= {"whole", "out", ".out.partial"}
    done = subprocess.run(
        [*words, "--tokenization_folder", str(out), "--resume"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }
    assert sorted(os.listdir(folder)) == ["out", "whole"]


def test_a_killed_run_resumes_to_the_same_bytes(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    kill_and_resume(source, tokenizer, tmp_path / "work", kills=1, seed=1)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_fifty_instants_resume_to_the_same_bytes(
    source: Path, tokenizer: Path, tmp_path: Path, seed: int
) -> None:
    kill_and_resume(source, tokenizer, tmp_path / "work", kills=5, seed=seed)


@pytest.fixture
def folders(source: Path, tmp_path: Path) -> dict[str, Any]:
    """Keys that train on a folder and validate on another; by bytes, as the tiny model has them."""
    code = (
        "import sys; from pathlib import Path; from megatron.neox.config import TokenizerConfig\n"
        "from megatron.neox.data.pretokenize import PretokenizeSettings, pretokenize\n"
        "for name, start in (('train', 0), ('valid', 60000)):\n"
        "    pretokenize(PretokenizeSettings(data_file=Path(sys.argv[1]), tokenization_folder=Path(name),\n"
        "        tokenizer=TokenizerConfig(tokenizer_type='CharLevelTokenizer'), pad_token=300, seq_length=32,\n"
        "        chars_to_tokenize=60000, starting_character=start, chunk_size=999, min_sample_length=4))\n"
    )
    made = run("-c", code, source, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert made.returncode == 0, made.stderr
    return {
        "train_data_paths": [str(tmp_path / "train")], "valid_data_paths": [str(tmp_path / "valid")],
    }  # fmt: skip


def test_a_data_file_that_is_not_there_is_told_before_a_tokenizer_is_asked_for(tmp_path: Path) -> None:
    words = ("--data_file", "none.parquet", "--tokenization_folder", "t")
    ran = run(TOOL, *words, cwd=tmp_path, HF_ENDPOINT="http://x")
    assert ran.returncode == 2
    assert (
        ran.stderr
        == f"InputError\nthe data file none.parquet does not exist (looked for {tmp_path}/none.parquet)\n"
    )


def test_train_takes_the_folders(folders: dict[str, Any], tmp_path: Path) -> None:
    done = train(write_config(tmp_path / "a.yml", save=str(tmp_path / "a"), **folders))
    assert done.returncode == 0, done.stderr
    found = metrics(tmp_path / "a")
    assert 0 < found[-1]["loss"] < found[0]["loss"]
    assert 0 < found[-1]["validation_loss"] < found[0]["loss"]


@pytest.mark.long
def test_training_on_the_folders_resumes_exactly(folders: dict[str, Any], tmp_path: Path) -> None:
    straight = train(write_config(tmp_path / "a.yml", save=str(tmp_path / "a"), **folders))
    assert straight.returncode == 0, straight.stderr
    folder = str(tmp_path / "b")
    halves = [{"exit_interval": 2}, {"load": folder}]
    for name, half in zip(("b.yml", "c.yml"), halves, strict=True):
        ran = train(write_config(tmp_path / name, save=folder, **half, **folders))
        assert ran.returncode == 0, ran.stderr
    expected, found = metrics(tmp_path / "a"), metrics(tmp_path / "b")
    assert [record["loss"] for record in found] == [record["loss"] for record in expected]
    assert found[-1]["validation_loss"] == expected[-1]["validation_loss"]
