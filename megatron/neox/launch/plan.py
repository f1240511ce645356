"""Which processes to start, where, and with which command."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from megatron.neox.config import Config, LaunchConfig
from megatron.neox.errors import ConfigError, InputError, Problem, ResourceError, UserError


@dataclass(frozen=True)
class Plan:
    """Processes to start."""

    num_ranks: int | None  # None where a scheduler decides
    device: str  # "cpu" or "cuda"
    is_local: bool  # all ranks run on this machine
    command: list[str]
    environment: dict[str, str | None]  # changes to this process's own; None takes a variable out
    notes: list[str] = field(default_factory=list)


def make_plan(config: Config, script: Path, arguments: list[str]) -> Plan:
    """Plan the ranks of `script arguments`.

    Raises:
        UserError: sizes that the machine or the process grid cannot have.
    """
    notes: list[str] = []
    num_gpus = count_gpus()
    hostfile = _hostfile(config.launch, notes)
    device = "cuda" if num_gpus or hostfile else "cpu"
    if config.launch.launcher == "torchrun":
        return _torchrun(config, script, arguments, device, num_gpus)
    if hostfile is not None:
        return _several_nodes(config, script, arguments, hostfile, notes)
    num_ranks = local_ranks(config, num_gpus, notes)
    if num_ranks == 1:
        return _alone(config, script, arguments, device, notes)
    command = [
        *_runner(), "--hostfile", os.devnull, *_devices(config.launch, num_gpus, num_ranks),
        "--master_addr", "127.0.0.1", "--master_port", str(_meeting_port(config.launch, notes)),
        str(script), *arguments,
    ]  # fmt: skip
    return Plan(num_ranks, device, True, command, _environment(device, num_ranks), notes)


def _runner() -> list[str]:
    # -P: a file of the working directory must not stand in for a module that DeepSpeed imports.
    return [sys.executable, "-P", "-m", "deepspeed.launcher.runner", "--quiet", "--no_local_rank"]


def _environment(device: str, ranks_on_node: int | None) -> dict[str, str | None]:
    """Variables that the ranks inherit: threads are shared among ranks, and DeepSpeed need not look for devices."""
    added: dict[str, str | None] = {"PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        added["DS_ACCELERATOR"] = "cpu"
        if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
            # How often a waiting thread looks before it sleeps. The default looks for milliseconds and so takes
            # the core that the others need where another process runs too (docs/log.md, 2026-11-21).
            added["GOMP_SPINCOUNT"] = "1000"
    else:
        # Named to DeepSpeed's runner by --include, which would otherwise complain that both are there.
        added["CUDA_VISIBLE_DEVICES"] = None
    if "OMP_NUM_THREADS" not in os.environ and ranks_on_node:
        added["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // ranks_on_node))
    return added


def _alone(config: Config, script: Path, arguments: list[str], device: str, notes: list[str]) -> Plan:
    """One rank, a child of this process: DeepSpeed's launcher would import torch twice before it starts."""
    environment = _environment(device, 1)
    if device == "cuda" and (chosen := device_of_one(config.launch, count_gpus())) is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(chosen)
    environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = str(_meeting_port(config.launch, notes))
    return Plan(1, device, True, [sys.executable, "-u", str(script), *arguments], environment, notes)


# --- one node -----------------------------------------------------------------------------------------------


def count_gpus() -> int:
    """CUDA devices that a process here would see, without importing torch; 0 where torch is built for CPUs."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not _torch_has_cuda():
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    devices = [entry for entry in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", entry.name)]
    if devices or shutil.which("nvidia-smi") is None:
        return len(devices)
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _torch_has_cuda() -> bool:
    """What torch/version.py says of the build."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    text = version.read_text(encoding="utf-8") if version.is_file() else ""
    return re.search(r"^cuda\b[^=]*= *None", text, re.MULTILINE) is None


def local_ranks(config: Config, num_gpus: int, notes: list[str]) -> int:
    """Ranks on this machine, which has `num_gpus` GPUs.

    Raises:
        UserError: more GPUs asked for than there are, or a number that the process grid does not divide.
    """
    launch, parallelism = config.launch, config.parallelism
    chosen = _chosen_devices(launch, num_gpus, notes)
    if chosen is not None:
        num_ranks, source = chosen
    elif launch.num_gpus is not None:
        num_ranks, source = launch.num_gpus, "num_gpus"
    elif parallelism.global_num_gpus is not None:
        num_ranks, source = parallelism.global_num_gpus, "global_num_gpus"
    elif num_gpus:
        num_ranks, source = num_gpus, "this machine's GPUs"
    else:
        num_ranks, source = config.parallelism.num_model_ranks, "the process grid"
    if num_gpus and num_ranks > num_gpus:
        raise UserError(
            f"{source} asks for {num_ranks} GPUs and this machine shows {num_gpus}; "
            f"give num_gpus: {num_gpus}, or a hostfile for several machines"
        )
    if num_ranks % config.parallelism.num_model_ranks:
        raise ConfigError([Problem.about(
            (source, "pipe_parallel_size", "model_parallel_size"),
            f"{num_ranks} processes ({source}) cannot be divided into pipe_parallel_size "
            f"{parallelism.num_pipe_stages} x model_parallel_size {parallelism.model_parallel_size}; "
            f"give num_gpus as a multiple of {config.parallelism.num_model_ranks}",
        )])  # fmt: skip
    return num_ranks


def _chosen_devices(launch: LaunchConfig, num_gpus: int, notes: list[str]) -> tuple[int, str] | None:
    """How many of this machine's devices `include` or `exclude` leave, None where neither is given."""
    if launch.include and launch.exclude:
        raise ConfigError(
            [
                Problem.about(
                    ("include", "exclude"), "include and exclude cannot both be given; keep one of them"
                )
            ]
        )
    text = launch.include or launch.exclude
    if not text:
        return None
    listed = _slots(text)
    if not num_gpus:
        notes.append(f"there is no GPU here, so the devices of {text!r} are not looked at")
        return None
    if launch.exclude:
        return num_gpus - len(listed), "exclude"
    if absent := [slot for slot in listed if slot >= num_gpus]:
        raise UserError(
            f"include {text!r} names GPU {absent[0]}, and this machine has GPUs 0 to {num_gpus - 1}; "
            "remove include, or --set include=localhost:0"
        )
    return (len(listed) or num_gpus), "include"


def _slots(text: str) -> list[int]:
    """Device numbers of `host:0,1@other:2`.

    Raises:
        ConfigError: it is not written so.
    """
    numbers = [number for part in text.split("@") for number in part.partition(":")[2].split(",") if number]
    if not all(number.strip().isdigit() for number in numbers):
        raise ConfigError(
            [
                Problem.about(
                    ("include", "exclude"), f"include and exclude are written host:0,1@other:2, not {text!r}"
                )
            ]
        )
    return [int(number) for number in numbers]


def _devices(launch: LaunchConfig, num_gpus: int, num_ranks: int) -> list[str]:
    """DeepSpeed's options that choose the devices."""
    if num_gpus and launch.include:
        return ["--include", launch.include]
    if num_gpus and launch.exclude:
        return ["--exclude", launch.exclude]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if num_gpus and visible:
        names = [name.strip() for name in visible.split(",") if name.strip()][:num_ranks]
        if not all(name.isdigit() for name in names):
            raise UserError(f"CUDA_VISIBLE_DEVICES={visible}: DeepSpeed's launcher takes device numbers only")
        return ["--include", f"localhost:{','.join(names)}"]
    return ["--num_gpus", str(num_ranks)]


def device_of_one(launch: LaunchConfig, num_gpus: int) -> int | None:
    """The device of a rank that is alone; None where nothing but the number of ranks says which."""
    option, text = _devices(launch, num_gpus, 1)
    if option == "--num_gpus":
        return None
    named = _slots(text)
    left = [slot for slot in range(num_gpus) if slot not in named] if option == "--exclude" else named
    return left[0] if left else None


def _meeting_port(launch: LaunchConfig, notes: list[str]) -> int:
    """The port that the config names, if nobody listens there, else a free one, so that runs do not meet."""
    if "master_port" not in launch.model_fields_set:
        return free_port()
    if _is_free(launch.master_port):
        return launch.master_port
    port = free_port()
    notes.append(f"port {launch.master_port} (master_port) is taken; using {port}")
    return port


def free_port() -> int:
    """A random port on which nothing on this machine listens.

    It lies below the range from which systems serve outgoing connections: the ranks bind it seconds after this look,
    and a port of that range could have gone to any connection of any process meanwhile.

    Raises:
        ResourceError: none of 64 ports tried is free.
    """
    for port in random.SystemRandom().sample(range(20_000, 29_000), 64):
        if _is_free(port):
            return port
    raise ResourceError("no free port was found between 20000 and 29000 for the ranks to meet on")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As torch's store does, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


# --- several nodes ------------------------------------------------------------------------------------------


def _hostfile(launch: LaunchConfig, notes: list[str]) -> Path | None:
    """The hostfile that names machines to use; None means this one alone.

    Raises:
        UserError: several nodes are asked for, and nothing names them.
    """
    if os.environ.get("SLURM_JOB_NODELIST") and launch.launcher == "slurm" and not launch.hostfile:
        return _slurm_hostfile()
    named = launch.hostfile or os.environ.get("DLTS_HOSTFILE") or "/job/hostfile"
    path = Path(named)
    if not path.is_file():
        if launch.num_nodes is not None and launch.num_nodes > 1:
            raise InputError(f"num_nodes is {launch.num_nodes}, and there is no hostfile at {path}")
        if launch.hostfile:
            notes.append(f"hostfile {path} does not exist: this machine alone is used")
        return None
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    hosts = [line for line in lines if line and not line.startswith("#")]
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#") and not re.match(r"\S+\s+slots=\d+", line):
            raise InputError(f"{path}:{number}: a line of a hostfile is `host slots=4`, not {line!r}")
    if not hosts:
        raise InputError(f"{path}: the hostfile names no host")
    local = ("localhost", "127.0.0.1", socket.gethostname())
    alone = len(hosts) == 1 and hosts[0].split()[0] in local and not launch.force_multi
    return None if alone else path


def _slurm_hostfile() -> Path:
    """A hostfile of the nodes that Slurm gave to this job."""
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    hosts = listed.stdout.split()
    if not hosts:
        raise UserError(f"scontrol names no host for this job: {listed.stderr.strip() or 'no answer'}")
    slots = os.environ.get("SLURM_GPUS_ON_NODE") or str(count_gpus() or 1)
    path = Path.cwd() / f"hostfile.{os.environ.get('SLURM_JOB_ID', 'slurm')}"
    path.write_text("".join(f"{host} slots={slots}\n" for host in hosts), encoding="utf-8")
    return path


def _several_nodes(
    config: Config, script: Path, arguments: list[str], hostfile: Path, notes: list[str]
) -> Plan:
    """DeepSpeed's runner over the machines of a hostfile."""
    launch = config.launch
    options = [
        "--hostfile",
        str(hostfile),
        "--launcher",
        launch.launcher,
        "--master_port",
        str(launch.master_port),
    ]
    for flag, value in (
        ("--include", launch.include), ("--exclude", launch.exclude), ("--num_nodes", launch.num_nodes),
        ("--num_gpus", launch.num_gpus), ("--master_addr", launch.master_addr),
    ):  # fmt: skip
        if value is not None:
            options += [flag, str(value)]
    if launch.no_ssh_check:
        options.append("--no_ssh_check")
    if launch.force_multi or launch.launcher == "slurm":
        options.append("--force_multi")
    extra = [f"--{key}={value}" for key in ("comment", "account") if (value := getattr(launch, key))]
    if extra:
        options += ["--launcher_args", " ".join(extra)]
    command = [*_runner(), *options, str(script), *arguments]
    return Plan(None, "cuda", False, command, {"PYTHONUNBUFFERED": "1"}, notes)


def _torchrun(config: Config, script: Path, arguments: list[str], device: str, num_gpus: int) -> Plan:
    """torchrun; with several nodes this same command is given on each of them."""
    launch = config.launch
    num_nodes = launch.num_nodes or 1
    per_node = launch.num_gpus or num_gpus or -(-config.parallelism.num_model_ranks // num_nodes)
    meeting = f"{launch.master_addr or '127.0.0.1'}:{launch.master_port}"
    command = [
        sys.executable, "-P", "-m", "torch.distributed.run", "--nnodes", str(num_nodes), "--nproc-per-node",
        str(per_node), "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, str(script), *arguments,
    ]  # fmt: skip
    environment = _environment(device, per_node)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return Plan(per_node * num_nodes, device, num_nodes == 1, command, environment)
