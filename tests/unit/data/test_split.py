from __future__ import annotations

import pytest

from megatron.neox.data.split import split_ranges
from megatron.neox.errors import ConfigError


def test_documents_are_divided_in_order() -> None:
    assert split_ranges("969, 30, 1", 1000) == {
        "train": range(969),
        "valid": range(969, 999),
        "test": range(999, 1000),
    }


def test_missing_shares_are_empty() -> None:
    assert split_ranges("1", 7) == {"train": range(7), "valid": range(7, 7), "test": range(7, 7)}


@pytest.mark.parametrize("text", ["", "0,0,0", "1,2,3,4", "-1,2", "a,b", "nan", "inf,1"])
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not one to three shares"):
        split_ranges(text, 10)
