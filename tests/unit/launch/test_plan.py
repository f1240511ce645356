"""Which processes a config asks for, on one machine and on several."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import Config
from megatron.neox.errors import ConfigError, InputError, UserError
from megatron.neox.launch.plan import device_of_one, local_ranks, make_plan

_MODEL = {
    "num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 32, "max_position_embeddings": 32,
}  # fmt: skip


def _config(**keys: Any) -> Config:
    return Config.from_flat({**_MODEL, **keys})


@pytest.mark.parametrize(
    ("keys", "num_gpus", "num_ranks"),
    [
        ({}, 0, 1),
        ({"pipe_parallel_size": 2, "model_parallel_size": 2}, 0, 4),
        ({"num_gpus": 2}, 0, 2),
        ({"global_num_gpus": 3}, 0, 3),
        ({"include": "localhost:9", "global_num_gpus": 1}, 0, 1),
        ({}, 8, 8),
        ({"num_gpus": 4, "pipe_parallel_size": 2}, 8, 4),
        ({"include": "localhost:1,5"}, 8, 2),
        ({"exclude": "localhost:1"}, 8, 7),
    ],
)
def test_ranks_of_one_machine(keys: dict[str, Any], num_gpus: int, num_ranks: int) -> None:
    assert local_ranks(_config(**keys), num_gpus, []) == num_ranks


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_gpus": 16}, "num_gpus asks for 16 GPUs and this machine shows 8"),
        ({"include": "localhost:9"}, "names GPU 9, and this machine has GPUs 0 to 7"),
        ({"num_gpus": 3, "pipe_parallel_size": 2}, "give num_gpus as a multiple of 2"),
        ({"include": "a:0", "exclude": "a:1"}, "include and exclude cannot both be given"),
        ({"include": "a:x"}, "include and exclude are written host:0,1@other:2"),
    ],
)
def test_what_the_machine_cannot_do(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        local_ranks(_config(**keys), 8, [])


def test_a_busy_port_is_replaced() -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        port = busy.getsockname()[1]
        plan = make_plan(_config(master_port=port, num_gpus=2), Path("/x/train.py"), ["--y"])
    chosen = plan.command[plan.command.index("--master_port") + 1]
    assert chosen != str(port)
    assert plan.notes == [f"port {port} (master_port) is taken; using {chosen}"]
    assert plan.command[-2:] == ["/x/train.py", "--y"]


def test_one_rank_needs_no_launcher() -> None:
    plan = make_plan(_config(), Path("/x/train.py"), [])
    assert plan.command[1:] == ["-u", "/x/train.py"]
    assert plan.environment["WORLD_SIZE"] == "1"


@pytest.mark.parametrize(
    ("keys", "device"),
    [
        ({}, None),
        ({"include": "localhost:5"}, 5),
        ({"include": "localhost"}, None),
        ({"exclude": "localhost:0,1,2"}, 3),
    ],
)
def test_one_rank_runs_on_the_device_that_is_left_to_it(
    keys: dict[str, Any], device: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_of_one(_config(**keys).launch, 4) == device
    if not keys:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
        assert device_of_one(_config().launch, 4) == 2


def test_a_hostfile_of_two_machines(tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# both\nalpha slots=8\nbeta slots=8\n")
    plan = make_plan(
        _config(hostfile=str(hostfile), launcher="slurm", account="me", num_nodes=2, no_ssh_check=True),
        Path("/x/train.py"),
        [],
    )
    options = " ".join(plan.command[plan.command.index("--hostfile") :])
    assert options == (
        f"--hostfile {hostfile} --launcher slurm --master_port 29500 --num_nodes 2 --no_ssh_check --force_multi "
        "--launcher_args --account=me /x/train.py"
    )
    assert not plan.is_local


def test_hostfiles_that_are_wrong(tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("alpha\n")
    with pytest.raises(InputError, match=r"hosts:1: a line of a hostfile is `host slots=4`, not 'alpha'"):
        make_plan(_config(hostfile=str(hostfile)), Path("/x/train.py"), [])
    with pytest.raises(InputError, match="num_nodes is 2, and there is no hostfile"):
        make_plan(_config(num_nodes=2), Path("/x/train.py"), [])


def test_an_absent_hostfile_means_this_machine() -> None:
    plan = make_plan(_config(hostfile="/mock_path"), Path("/x/train.py"), [])
    assert plan.notes == ["hostfile /mock_path does not exist: this machine alone is used"]


def test_global_number_and_grid_contradict() -> None:
    with pytest.raises(ConfigError, match="3 processes"):
        local_ranks(_config(global_num_gpus=3, model_parallel_size=2), 0, [])
