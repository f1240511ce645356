from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.neox.errors import InputError, OutputError, VocabularyError
from megatron.neox.tokenizers import GPT2BPETokenizer, HFTokenizer, Tokenizer
from megatron.neox.tokenizers.train import is_sampled, train_vocabulary, write_vocabulary

LIBRARY = Path(sysconfig.get_path("stdlib"))
FILES = [LIBRARY / name for name in ("argparse.py", "json/decoder.py", "tokenize.py", "email/message.py")]


def gpt2(folder: Path, **options: str) -> GPT2BPETokenizer:
    return GPT2BPETokenizer(
        vocab_file=str(folder / "vocab.json"), merge_file=str(folder / "merges.txt"), **options
    )  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(train_vocabulary((path.read_text() for path in FILES), vocab_size=1000), folder)
    return folder


@pytest.fixture(scope="module", params=["drop_first_line", "auto", "tokenizer.json"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    if request.param == "tokenizer.json":
        return HFTokenizer(vocab_file=str(folder / "tokenizer.json"))
    return gpt2(folder, merges_header=request.param)


def test_specials_come_first_then_every_byte(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text())
    assert vocabulary["<|endoftext|>"] == 0
    assert vocabulary["<|padding|>"] == 1
    assert sorted(vocabulary.values()) == list(range(1000))
    assert sum(len(piece) == 1 for piece in vocabulary) == 256
    assert (folder / "merges.txt").read_text().startswith("#version: 0.2\n")
    assert (folder / "merges.txt").read_text().count("\n") == 1 + 1000 - 258


def test_both_readings_of_the_header_are_the_same_tokenizer(folder: Path) -> None:
    dropping, automatic = gpt2(folder), gpt2(folder, merges_header="auto")
    assert dropping.fingerprint() == automatic.fingerprint()
    assert dropping.fingerprint()["merges_header"] == "present"
    assert dropping.fingerprint()["missing_bytes"] == "none"
    text = FILES[0].read_text()
    assert dropping.encode(text) == automatic.encode(text)


def real_files() -> Iterator[Path]:
    """Fifty files of the standard library, of any kind, the same each time."""
    files = sorted(
        path for path in LIBRARY.glob("[a-t]*/*") if path.is_file() and path.stat().st_size < 200_000
    )
    return iter(random.Random(0).sample(files, 50))


def test_the_three_files_give_the_same_ids(folder: Path) -> None:
    one, other = gpt2(folder), HFTokenizer(vocab_file=str(folder / "tokenizer.json"))
    for path in real_files():
        data = path.read_bytes()
        assert one.encode_bytes(data) == other.encode_bytes(data), path


def test_real_files_come_back_byte_for_byte(tokenizer: Tokenizer) -> None:
    for path in real_files():
        data = path.read_bytes()
        ids = tokenizer.encode_bytes(data)
        assert tokenizer.decode_bytes(ids) == data, path
        assert tokenizer.eod not in ids, path


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_come_back(tokenizer: Tokenizer, data: bytes) -> None:
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=300))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, text]) == [ids, ids]
    assert tokenizer.encode_bytes(text.encode()) == ids


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|padding|>", "x = '<|endoftext|>'\n"])
def test_special_tokens_in_a_text_are_plain_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not {0, 1} & set(ids)
    assert tokenizer.decode(ids) == text


def test_all_three_kinds_of_file_know_their_size(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 1000
    assert tokenizer.fingerprint()["vocab_size"] == 1000
    assert tokenizer.decode([1000, 1007]) == "\ufffd\ufffd"


def test_training_is_deterministic_across_processes_and_orders(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from megatron.neox.tokenizers.train import *;"
        "files = [Path(name) for name in sys.argv[2:]];"
        "write_vocabulary(train_vocabulary((f.read_text() for f in files), vocab_size=1000), Path(sys.argv[1]))"
    )
    files = [str(path) for path in reversed(FILES)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path), *files], check=True, env=environment)
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_small_texts_give_small_vocabularies(tmp_path: Path) -> None:
    write_vocabulary(train_vocabulary(["ab ab ab"], vocab_size=500), tmp_path)
    tokenizer = gpt2(tmp_path)
    assert tokenizer.vocab_size == 260
    assert tokenizer.encode(" ab") == [259]


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="--vocab-size is 257; 258 are needed"):
        train_vocabulary(["x"], vocab_size=257)
    with pytest.raises(InputError, match="no text to learn"):
        train_vocabulary([], vocab_size=300)
    engine = train_vocabulary(["x"], vocab_size=258)
    write_vocabulary(engine, tmp_path / "new" / "folder")
    with pytest.raises(OutputError, match=r"holds vocab\.json, merges\.txt, tokenizer\.json already"):
        write_vocabulary(engine, tmp_path / "new" / "folder")
    write_vocabulary(engine, tmp_path / "new" / "folder", overwrite=True)
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["merges.txt", "tokenizer.json", "vocab.json"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write to"):
        write_vocabulary(engine, tmp_path / "file")


def test_a_sample_depends_on_the_names_alone() -> None:
    names = [f"C/org/project/{number}.c" for number in range(20_000)]
    sample = {name for name in names if is_sampled(name, share=0.05, seed=1234)}
    assert 900 < len(sample) < 1100
    assert sample == {name for name in reversed(names) if is_sampled(name, share=0.05, seed=1234)}
    assert sample < {name for name in names if is_sampled(name, share=0.2, seed=1234)}
    assert len(sample & {name for name in names if is_sampled(name, share=0.05, seed=1235)}) < 100
    assert [number for number in range(100) if names[number] in sample] == [2, 6, 26, 48, 58]
    assert all(is_sampled(name, share=1.0, seed=0) for name in [*names, "bad\udcff.c"])


def test_the_tool_learns_from_the_sample_alone(tmp_path: Path) -> None:
    """The vocabulary of a sample is that of a folder which holds the sampled files and no others."""
    source, chosen = tmp_path / "all", tmp_path / "chosen"
    for number, path in enumerate(sorted(LIBRARY.glob("*.py"))[:40]):
        names = [source] + [chosen] * is_sampled(f"{number}.py", share=0.3, seed=5)
        for folder in names:
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.py").write_bytes(path.read_bytes())
    tool = str(Path(__file__).resolve().parents[3] / "tools" / "train_tokenizer.py")
    words = ["--vocab-size", "400", "--seed", "5"]
    for folder, more in ((source, ["--sample", "0.3"]), (chosen, [])):
        output = str(tmp_path / f"{folder.name}-vocabulary")
        command = [sys.executable, tool, "--input", str(folder), "--output", output, *words, *more]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        assert ("not_sampled" in ran.stdout) == bool(more)
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        found = [(tmp_path / f"{folder}-vocabulary" / name).read_bytes() for folder in ("all", "chosen")]
        assert found[0] == found[1]


def test_a_vocabulary_smaller_than_asked_for_says_why(tmp_path: Path) -> None:
    # 256 bytes, two specials, ab and cd.
    (tmp_path / "one.py").write_text("abab cdcd\n")
    tool = str(Path(__file__).resolve().parents[3] / "tools" / "train_tokenizer.py")
    command = [
        sys.executable,
        tool,
        "--input",
        tmp_path / "one.py",
        "--output",
        tmp_path / "v",
        "--vocab-size",
        "400",
    ]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stderr == (
        "NOTE: 260 pieces, not the 400 asked for: no other pair occurs 2 times in this much text\n"
    )
