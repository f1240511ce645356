from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.downloads.fetch import Patience
from megatron.neox.downloads.hub import fetch_hub_file, parse_hub_path
from megatron.neox.errors import ResourceError


def test_files_of_two_revisions_do_not_stand_for_each_other() -> None:
    places = [
        parse_hub_path(f"hf://datasets/a/b{revision}/c/d.parquet").path_in(Path("downloads"))
        for revision in ("", "@main", "@v1.0", "@..")
    ]
    assert [str(place) for place in places] == [
        "downloads/a/b/c/d.parquet", "downloads/a/b/c/d.parquet", "downloads/a/b@v1.0/c/d.parquet",
        "downloads/a/b@../c/d.parquet",
    ]  # fmt: skip


def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match=r"given up at attempt 2\n.*HF_ENDPOINT names another server"):
        fetch_hub_file("hf://datasets/a/b/c.parquet", tmp_path, lambda *_: None, Patience(1, 0.01))
