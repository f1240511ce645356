"""The steps of the chain: which command each is, and how to see that it has been done.

A step whose output is there already is skipped; an interrupted chain goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.config.load import load_config
from megatron.neox.errors import InputError, NeoXError, OutputError
from megatron.neox.files import write_whole
from megatron.neox.quickstart.outcome import present
from megatron.neox.quickstart.prompts import write_prompts


class StepFailed(NeoXError):
    """A command of the chain failed; it has said why itself."""

    def __init__(self, title: str, exit_code: int) -> None:
        super().__init__(
            f"step '{title}' ended with exit code {exit_code}; run the same command again to go on"
        )
        self.exit_code = exit_code


@dataclass(frozen=True)
class Step:
    """One command, and how to see that it has been done."""

    title: str
    command: Sequence[str]
    is_done: Callable[[], bool]
    prepare: Callable[[], None] | None = None


@dataclass(frozen=True)
class Quickstart:
    """A run of the chain.

    Args:
        root: the checkout, where deepy.py, tools/ and configs/ lie.
        output: folder of everything the chain makes.
        source: folder of source code; none means the Python standard library.
        extensions: file name endings to collect; none means the collecting tool's own (`.py`).
        settings: `KEY=VALUE` overrides of the config.
    """

    root: Path
    output: Path
    source: Path | None = None
    extensions: str | None = None
    config: str = "configs/quickstart.yml"
    settings: Sequence[str] = ()

    def run(self) -> dict[str, Any]:
        """Run what is missing of the chain and return the summary that it wrote to summary.json.

        Raises:
            StepFailed: a command failed; running the chain again goes on there.
            ConfigError: a setting is wrong, which else came to light after minutes.
            InputError: the source is no folder.
            OutputError: the output folder holds a run on another source or with other settings.
        """
        load_config([self.root / self.config], overrides=self.settings)
        if self.source is not None and not self.source.is_dir():
            raise InputError(f"--input {self.source} is not a folder; give one with source code below it")
        self._claim_output()
        steps = self._steps()
        for number, step in enumerate(steps, start=1):
            print(f"\n[{number}/{len(steps)}] {step.title}", flush=True)
            self._run_step(step)
        summary = present(self.output, shown_as=self._path())
        ask = ["./deepy.py", "generate.py", *self._config_arguments(), "--set", "text_gen_type=interactive"]
        print(f"\nto give the model prompts of your own:\n$ {shlex.join(ask)}")
        return summary

    def _claim_output(self) -> None:
        """Say in source.json what the run is made of; what is there of another run must not pass for this one's."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise OutputError(f"--output {self.output}: {error.strerror}; give a folder") from error
        marker = self.output / "source.json"
        source = {
            "source": str(self.source) if self.source else None,
            "extensions": self.extensions,
            "settings": list(self.settings),
        }
        if not marker.exists():
            write_whole(marker, json.dumps(source) + "\n")
            return
        held = {"settings": [], **json.loads(marker.read_text(encoding="utf-8"))}
        if held != source:
            settings = f" with --set {' '.join(held['settings'])}" if held["settings"] else ""
            endings = f", files ending in {held['extensions']}" if held["extensions"] else ""
            raise OutputError(
                f"{self.output} holds a run on {held['source'] or 'the Python standard library'}{endings}{settings}; "
                "give the same again, another --output, or remove that folder"
            )

    def _path(self, *parts: str) -> str:
        """A path below the output folder, as short as it can be written from the checkout."""
        path = self.output.joinpath(*parts)
        return os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)

    def _config_arguments(self) -> list[str]:
        """The config and, where the output is not the config's own, its paths."""
        arguments = [self.config]
        overrides = list(self.settings)
        if self._path() != "runs/quickstart":
            overrides += [
                f"train_data_paths=[{self._path('data', 'train_text_document')}]",
                f"valid_data_paths=[{self._path('data', 'heldout_text_document')}]",
                f"vocab_file={self._path('vocabulary', 'vocab.json')}",
                f"merge_file={self._path('vocabulary', 'merges.txt')}",
                f"save={self._path('checkpoints')}",
                f"load={self._path('checkpoints')}",
                f"sample_input_file={self._path('prompts')}",
                f"sample_output_file={self._path('completions.jsonl')}",
                f"eval_data_path={self._path('corpus', 'heldout')}",
                f"eval_results_path={self._path('results.json')}",
            ]
        for override in overrides:
            arguments += ["--set", override]
        return arguments

    def _steps(self) -> list[Step]:
        collect = ["tools/collect/collect_folder.py", "--output", self._path("corpus")]
        if self.source is not None:
            collect += ["--input", str(self.source)]
        if self.extensions is not None:
            collect += ["--extensions", self.extensions]
        config = self._config_arguments()
        learn = ["tools/train_tokenizer.py", "--input", self._path("corpus", "train")]
        learn += ["--vocab-size", "4096", "--output", self._path("vocabulary")]
        return [
            Step("collect the files", collect, self._exists("corpus", "summary.json")),
            Step(
                "train a byte-level BPE vocabulary",
                learn,
                self._exists("vocabulary", "tokenizer.json"),
                self._write_prompts,  # files that cannot be cut are told now, not after training
            ),
            *(self._tokenize(part) for part in ("train", "heldout")),
            Step("train the model", ["./deepy.py", "train.py", *config], self._is_trained),
            Step(
                "complete three prompts",
                ["./deepy.py", "generate.py", *config],
                self._follows("completions.jsonl"),
            ),
            Step(
                "measure the held-out files",
                ["./deepy.py", "evaluate.py", *config],
                self._follows("results.json"),
            ),
        ]

    def _tokenize(self, part: str) -> Step:
        command = ["tools/preprocess_data.py", "--input", self._path("corpus", part)]
        command += ["--tokenizer-type", "GPT2BPETokenizer"]
        command += ["--vocab-file", self._path("vocabulary", "vocab.json")]
        command += ["--merge-file", self._path("vocabulary", "merges.txt")]
        command += ["--output-prefix", self._path("data", part), "--append-eod", "--workers", "2"]
        done = self._exists("data", f"{part}_text_document.json")
        return Step(f"write .bin/.idx of the {part} files", command, done)

    def _exists(self, *parts: str) -> Callable[[], bool]:
        return lambda: self.output.joinpath(*parts).exists()

    def _follows(self, name: str) -> Callable[[], bool]:
        """Whether an output was made of the checkpoint that is there."""
        output, latest = self.output / name, self.output / "checkpoints" / "latest"
        return lambda: output.exists() and output.stat().st_mtime >= latest.stat().st_mtime

    def _write_prompts(self) -> None:
        write_prompts(self.output / "corpus" / "heldout", self.output / "prompts")

    def _is_trained(self) -> bool:
        """Whether the newest checkpoint is that of the last step."""
        latest = self.output / "checkpoints" / "latest"
        if not latest.exists():
            return False
        loaded = load_config([self.root / self.config], overrides=self.settings)
        return latest.read_text().strip() == f"global_step{loaded.config.training.train_iters}"

    def _run_step(self, step: Step) -> None:
        print(f"$ {shlex.join(step.command)}", flush=True)
        if step.is_done():
            print("  done before", flush=True)
            return
        if step.prepare is not None:
            step.prepare()
        begun = time.monotonic()
        # Ctrl-C reaches the command too, which saves and stops; this process waits for it.
        process = subprocess.Popen([sys.executable, *step.command], cwd=self.root)
        try:
            exit_code = process.wait()
        except KeyboardInterrupt:
            print("the same command goes on from here", file=sys.stderr)
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
            process.wait()
            signal.signal(signal.SIGINT, previous)
            raise
        if exit_code != 0:
            raise StepFailed(step.title, exit_code)
        print(f"  took {time.monotonic() - begun:,.0f} s", flush=True)
