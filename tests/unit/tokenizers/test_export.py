from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers.processors import TemplateProcessing

from megatron.neox.errors import VocabularyError
from megatron.neox.tokenizers import CharLevelTokenizer, GPT2BPETokenizer, HFTokenizer
from megatron.neox.tokenizers.export import TOKENIZER_FILES, first_token, tokenizer_json, write_tokenizer
from megatron.neox.tokenizers.train import train_vocabulary, write_vocabulary
from tests.unit.tokenizers.test_gpt2_bpe import GOLDEN_IDS, GOLDEN_TEXT, load

ODD_TEXTS = (
    GOLDEN_TEXT,
    "<|endoftext|>x<|padding|> <|separator|>\n<|endoftext|>",
    "\r\n\r\r\t\tif x:\r\n        pass    \n",
    "é 日本 🙂 \u2028 \xa0 \x00 \x7f Ā <s></s>",
)


@cache
def exported(folder: Path, *options: str) -> Engine:
    return Engine.from_str(json.dumps(tokenizer_json(load(folder, *options))))


@cache
def in_transformers(folder: Path, place: Path) -> Any:
    write_tokenizer(load(folder), place, max_length=2048)
    return transformers.AutoTokenizer.from_pretrained(place)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200))
@example(text=ODD_TEXTS[0])
@example(text=ODD_TEXTS[1])
@example(text=ODD_TEXTS[2])
@example(text=ODD_TEXTS[3])
def test_polycoders_ids_survive_in_tokenizer_json(polycoder: Path, text: str) -> None:
    for options in ((), ("auto", "extend")):
        ours, theirs = load(polycoder, *options), exported(polycoder, *options)
        encoding = theirs.encode(text)
        assert encoding.ids == ours.encode(text)
        assert theirs.decode(encoding.ids, skip_special_tokens=False) == ours.decode(encoding.ids)


def test_the_golden_ids_come_out_of_transformers(polycoder: Path, tmp_path: Path) -> None:
    tokenizer = in_transformers(polycoder, tmp_path)
    assert tokenizer.encode(GOLDEN_TEXT) == GOLDEN_IDS
    assert tokenizer(GOLDEN_TEXT)["input_ids"] == GOLDEN_IDS
    assert tokenizer([GOLDEN_TEXT], return_tensors="np")["input_ids"].tolist() == [GOLDEN_IDS]
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 0)
    assert len(tokenizer) == 50257


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_ids_in_transformers_are_ours(polycoder: Path, tmp_path_factory: Any, text: str) -> None:
    tokenizer = in_transformers(polycoder, tmp_path_factory.getbasetemp())
    assert tokenizer.encode(text) == load(polycoder).encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == load(polycoder).decode(tokenizer.encode(text))


def test_the_two_files_of_gpt2_hold_the_rules_in_use(polycoder: Path, tmp_path: Path) -> None:
    """Whoever reads them, header dropped or not, gets the ids that the model was trained on."""
    write_tokenizer(load(polycoder), tmp_path, max_length=2048)
    generator = random.Random(1)
    text = "".join(generator.choices("aé日 \t\n\r'()<|>endoftext  0½🙂", k=800)) + GOLDEN_TEXT
    for header in ("drop_first_line", "auto"):
        again = GPT2BPETokenizer(
            vocab_file=str(tmp_path / "vocab.json"),
            merge_file=str(tmp_path / "merges.txt"),
            merges_header=header,
        )
        assert again.encode(text) == load(polycoder).encode(text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=100))
def test_bytes_as_ids_survive_in_tokenizer_json(text: str) -> None:
    engine = Engine.from_str(json.dumps(tokenizer_json(CharLevelTokenizer())))
    assert engine.encode(text).ids == CharLevelTokenizer().encode(text)
    assert engine.decode(list(text.encode()), skip_special_tokens=False) == text


def test_bytes_as_ids_in_transformers(tmp_path: Path) -> None:
    write_tokenizer(CharLevelTokenizer(), tmp_path, max_length=64)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Ā def f():\r\n\treturn 'é'\x00"
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.eos_token_id == 0


def test_an_own_vocabulary_survives(tmp_path: Path) -> None:
    engine = train_vocabulary(["def f(x):\n    return x\n" * 5, "class A:\n\tpass\n" * 5], vocab_size=300)
    write_vocabulary(engine, tmp_path)
    ours = HFTokenizer(vocab_file=str(tmp_path / "tokenizer.json"))
    out = tmp_path / "out"
    out.mkdir()
    names = {path.name for path in write_tokenizer(ours, out, max_length=64)}
    assert names == set(TOKENIZER_FILES)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    for text in ODD_TEXTS:
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(theirs.encode(text)) == text


def test_another_kind_of_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(VocabularyError, match="a str cannot be written"):
        tokenizer_json("ab")  # pyright: ignore[reportArgumentType]


def test_a_first_token_that_a_file_asks_for_stays_its_own(tmp_path: Path) -> None:
    """As in Llama's tokenizer.json: transformers puts <s> before a text, unless told not to."""
    engine = train_vocabulary(["def f(x):\n    return x\n" * 5], vocab_size=280)
    engine.add_special_tokens(["<s>"])
    first = engine.token_to_id("<s>")
    engine.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    write_vocabulary(engine, tmp_path)
    ours = HFTokenizer(vocab_file=str(tmp_path / "tokenizer.json"))
    assert first_token(tokenizer_json(ours)) == first
    (tmp_path / "out").mkdir()
    write_tokenizer(ours, tmp_path / "out", max_length=64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (first, ours.eod)
    assert theirs.encode("def f") == [first, *ours.encode("def f")]
    assert theirs.encode("def f", add_special_tokens=False) == ours.encode("def f")
