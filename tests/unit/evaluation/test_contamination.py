"""Files seen in training; the index itself is tested in tests/unit/corpus/index/test_index.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from megatron.neox.errors import InputError
from megatron.neox.evaluation.contamination import find_seen

SEEN, UNSEEN = hashlib.sha256(b"x = 1\n").hexdigest(), hashlib.sha256(b"y = 2\n").hexdigest()


def test_hashes_are_found(tmp_path: Path) -> None:
    (tmp_path / "index").write_text(f"Python__ann__tools__a b__c.py\t{SEEN}\n")
    assert find_seen(tmp_path / "index", {SEEN, UNSEEN}) == {SEEN}


def test_an_index_that_is_absent_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"eval_contamination_index .*absent does not exist"):
        find_seen(tmp_path / "absent", set())
