"""Folders in the form of the Hugging Face hub: which ids end, begin and fill texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, processors

from megatron.neox.errors import InputError, VocabularyError
from megatron.neox.tokenizers import CharLevelTokenizer, HFTokenizer, build_tokenizer
from megatron.neox.tokenizers.pretrained import find_pretrained, padding_of
from megatron.neox.tokenizers.train import train_vocabulary, write_vocabulary


def folder(path: Path, *, template: bool = False, own_end: bool = False, **settings: Any) -> Path:
    """A tokenizer with <s> and </end> of its own, 300 pieces and two."""
    engine = train_vocabulary(["int main(void);\n" * 9, "return 0;\n" * 5], vocab_size=280)
    engine.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</end>", special=True)])
    first = engine.token_to_id("<s>")
    if template:
        engine.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", first)]
        )  # pyright: ignore[reportAttributeAccessIssue]
    write_vocabulary(engine, path)
    saved = json.loads((path / "tokenizer.json").read_text())
    if own_end:
        saved["model"]["vocab"]["<gone>"] = saved["model"]["vocab"].pop("<|endoftext|>")
        saved["added_tokens"] = [
            token for token in saved["added_tokens"] if token["content"] != "<|endoftext|>"
        ]
        (path / "tokenizer.json").write_text(json.dumps(saved))
    if settings:
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def built(path: Path) -> tuple[Any, HFTokenizer]:
    pretrained = find_pretrained(str(path))
    tokenizer = build_tokenizer(pretrained.section)
    assert isinstance(tokenizer, HFTokenizer)
    return pretrained, tokenizer


def test_a_folder_without_settings_has_no_tokens_but_its_own(tmp_path: Path) -> None:
    pretrained, tokenizer = built(folder(tmp_path / "a"))
    assert (pretrained.pad_token(tokenizer), pretrained.first_token(tokenizer)) == (None, None)
    assert padding_of(tokenizer) == 1
    assert tokenizer.eod == 0
    assert padding_of(CharLevelTokenizer()) is None


def test_the_settings_name_them(tmp_path: Path) -> None:
    settings = {"pad_token": "</end>", "bos_token": {"content": "<s>"}, "eos_token": {"content": "</end>"}}
    pretrained, tokenizer = built(folder(tmp_path / "a", own_end=True, **settings))
    end = tokenizer.engine.token_to_id("</end>")
    assert tokenizer.eod == end
    assert pretrained.pad_token(tokenizer) == end
    assert pretrained.first_token(tokenizer) is None
    assert pretrained.bos_token(tokenizer) == end - 1


@pytest.mark.parametrize(("settings", "asks"), [({}, True), ({"add_bos_token": False}, False)], ids=str)
def test_a_first_token_is_put_where_the_template_has_one(
    tmp_path: Path, settings: dict[str, Any], asks: bool
) -> None:
    pretrained, tokenizer = built(folder(tmp_path / "a", template=True, bos_token="<s>", **settings))
    assert pretrained.first_token(tokenizer) == (tokenizer.engine.token_to_id("<s>") if asks else None)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        VocabularyError, match=r"has no tokenizer\.json; give a tokenizer that has one, or --vocab"
    ):
        find_pretrained(str(tmp_path))
    with pytest.raises(
        InputError, match=r"there is no folder a b/c, and it is no name of the Hugging Face hub either"
    ):
        find_pretrained("a b/c")
    path = folder(tmp_path / "a", own_end=True)
    with pytest.raises(VocabularyError, match=r"and no tokenizer_config\.json beside it names its eos_token"):
        build_tokenizer(find_pretrained(str(path)).section)
    (path / "tokenizer_config.json").write_text("{")
    with pytest.raises(VocabularyError, match=r"tokenizer_config\.json is damaged"):
        find_pretrained(str(path))
