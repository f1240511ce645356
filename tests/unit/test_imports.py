from __future__ import annotations

import importlib
import sys

import pytest

from megatron.neox.imports import absent


def test_a_module_is_absent_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys"):
        with pytest.raises(ModuleNotFoundError, match="colorsys"):
            importlib.import_module("colorsys")
        assert importlib.import_module("json")
    assert importlib.import_module("colorsys").rgb_to_hsv
    with absent("colorsys"):
        assert importlib.import_module("colorsys")
