"""Trying many configs: which load, and which feature each of the others is refused for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.errors import InputError
from megatron.neox.launch.trials import Trial, find_configs, markdown_table, try_config

ROOT = Path(__file__).resolve().parents[3]
SIZES = (
    "num_layers: 2\nhidden_size: 32\nnum_attention_heads: 4\nseq_length: 32\nmax_position_embeddings: 64\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four configs: whole, part, refused, not YAML."""
    (tmp_path / "below").mkdir()
    (tmp_path / "whole.yml").write_text(SIZES + "fp16: {enabled: true}\nrope_fusion: true\n")
    (tmp_path / "below/part.json").write_text('{"data_path": "x"}')
    (tmp_path / "refused.yml").write_text(
        SIZES + "moe_num_experts: 8\nte_mha: true\nte_rowparallel: true\nattention_config: [[[rwkv], 2]]"
    )
    (tmp_path / "torn.yml").write_text('{"a": [1\n')
    (tmp_path / "arguments.schema.json").write_text("{}")
    return tmp_path


def tried(folder: Path, *defaults: Path) -> list[Trial]:
    """All configs of the folder."""
    return [try_config(path, shown=shown, defaults=defaults) for path, shown in find_configs([folder])]


def test_each_file_has_an_outcome(folder: Path) -> None:
    sizes = folder / "whole.yml"
    assert [(trial.file, trial.outcome) for trial in tried(folder, sizes)] == [
        ("below/part.json", "loads with a model's sizes, 1 note"),
        (
            "refused.yml",
            "refused: moe_num_experts: mixture of experts is not implemented: leave it at 1; te_mha, te_rowparallel: "
            "Transformer Engine is not used: remove it, or set it to false; attention_config: attention rwkv is not "
            "implemented; use global, or local with sliding_window_width",
        ),
        (
            "torn.yml",
            "refused: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
        ),
        ("whole.yml", "loads, 1 note"),
    ]


def test_a_whole_config_gets_no_defaults(folder: Path) -> None:
    other = folder / "other.yml"
    other.write_text(SIZES + "bf16: {enabled: true}\n")
    whole = try_config(folder / "whole.yml", shown="whole.yml", defaults=[other])
    assert whole.loads, whole.outcome


def test_a_part_without_defaults_says_what_it_lacks(folder: Path) -> None:
    (part,) = [trial for trial in tried(folder) if trial.file == "below/part.json"]
    assert "must give num_layers, hidden_size" in part.outcome


def test_markdown(folder: Path) -> None:
    lines = markdown_table([Trial("a.yml", False, ("x | y",), (), False)]).splitlines()
    assert lines == ["| config | outcome |", "|---|---|", "| a.yml | refused: x \\| y |"]


def test_nothing_to_try_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no .yml, .yaml or .json file"):
        list(find_configs([tmp_path]))
    with pytest.raises(InputError, match="no file or folder"):
        list(find_configs([tmp_path / "absent"]))


def test_our_own_configs_all_load() -> None:
    command = [sys.executable, "tools/try_configs.py", "configs", "--defaults", "configs/160M.yml"]
    done = subprocess.run(
        [*command, "--format", "json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"160M.yml", "2-7B.yml", "local_setup.yml"} <= {row["file"] for row in rows}
    assert all(row["loads"] for row in rows)


def test_a_refused_config_is_told_by_the_exit_status(folder: Path) -> None:
    command = [sys.executable, "tools/try_configs.py", str(folder / "refused.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{folder / 'refused.yml'}: refused: moe_num_experts")
