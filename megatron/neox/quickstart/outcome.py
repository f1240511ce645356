"""What a finished chain has to show: summary.json, the loss curve, the report, and the lines on the terminal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron.neox.files import write_whole
from megatron.neox.quickstart.prompts import read_prompts
from megatron.neox.reports.loss_curve import draw_loss_curves
from megatron.neox.reports.metrics import Metrics
from megatron.neox.reports.page import Completion, Page, Picture, Table

NAME_WIDTH = 36


def present(output: Path, *, shown_as: str) -> dict[str, Any]:
    """Write loss.png, report.html and summary.json below `output`, and print what they hold.

    Args:
        shown_as: how the output folder is written in the summary and on the terminal.

    Returns:
        The summary: all measured in this run, bits per byte over the held-out files together.
    """
    metrics = Metrics(output / "checkpoints")
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    files = _read_lines(output / results["documents"]["perplexity"])
    completions = _completions(output)
    summary = summarise(metrics, results["results"]["perplexity"])
    summary |= {"checkpoint": f"{shown_as}/checkpoints", "report": f"{shown_as}/report.html"}

    draw_loss_curves({output.name: metrics}, output / "loss.png")
    facts = {name.replace("_", " "): value for name, value in summary.items()}
    table = files_table(files, results["configs"]["perplexity"])
    says = "Training and validation loss over steps; the numbers are in metrics.jsonl"
    picture = Picture("Loss", output / "loss.png", says)
    Page("Quick start", facts, [picture], [table], completions).write(output / "report.html")
    write_whole(output / "summary.json", json.dumps(summary, indent=2) + "\n")

    for completion in completions:
        _print_completion(completion)
    _print_files(files)
    _print_summary(summary)
    return summary


def summarise(metrics: Metrics, perplexity: dict[str, Any]) -> dict[str, Any]:
    """The figures of summary.json, from what training logged and what the perplexity task found."""
    seconds = train_seconds(metrics)
    tokens = metrics.curve("tokens").last or 0.0
    return {
        "model_bits_per_byte": perplexity["bits_per_byte"],
        "gzip_bits_per_byte": perplexity["gzip_bits_per_byte"],
        "xz_bits_per_byte": perplexity["xz_bits_per_byte"],
        "token_perplexity": perplexity["token_perplexity"],
        "pygments_perplexity": perplexity["pygments_perplexity"],
        "validation_loss": metrics.curve("validation_loss").last,
        "train_seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
    }


def train_seconds(metrics: Metrics) -> float:
    """Seconds spent in optimizer steps over all sittings of a run, from the speed of each logged stretch."""
    tokens = [0.0, *metrics.curve("tokens").values]
    stretches = [after - before for before, after in itertools.pairwise(tokens)]
    speeds = metrics.curve("tokens_per_second").values
    return sum(stretch / speed for stretch, speed in zip(stretches, speeds, strict=True))


def files_table(files: Sequence[dict[str, Any]], config: dict[str, Any]) -> Table:
    """Bits per byte of every held-out file, the model beside the compressors."""
    rows = [
        (row["path"], row["bytes"], *(f"{row[key]:.3f}" for key in _BITS), f"{row['token_perplexity']:.1f}")
        for row in files
    ]
    caption = (
        f"Held-out files: bits per byte (window {config['window']}, stride {config['stride']}; "
        f"{config['compressors']}), and the model's perplexity per token"
    )
    return Table(caption, ("file", "bytes", "model", "gzip -9", "xz -9", "perplexity"), rows)


_BITS = ("bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte")


def _completions(output: Path) -> list[Completion]:
    records = _read_lines(output / "completions.jsonl")
    prompts = read_prompts(output)
    return [
        Completion(prompt.source, prompt.text, record["text"] or "", prompt.real)
        for prompt, record in zip(prompts, records, strict=True)
    ]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _print_completion(completion: Completion) -> None:
    for title, text in (
        (f"{completion.source}: the prompt", completion.prompt),
        ("the model goes on", completion.generated),
        ("the file goes on", completion.real),
    ):
        print(f"\n--- {title} ---\n{text.strip(chr(10))}")


def _print_files(files: Sequence[dict[str, Any]]) -> None:
    print(f"\n{'bits per byte of held-out files':{NAME_WIDTH}}   bytes   model gzip -9   xz -9  perplexity")
    for row in files:
        bits = " ".join(f"{row[key]:7.3f}" for key in _BITS)
        print(
            f"{row['path'][-NAME_WIDTH:]:{NAME_WIDTH}} {row['bytes']:7d} {bits} {row['token_perplexity']:11.1f}"
        )


def _print_summary(summary: dict[str, Any]) -> None:
    print()
    for name, value in summary.items():
        print(
            f"{name.replace('_', ' '):{NAME_WIDTH}} {f'{value:.4g}' if isinstance(value, float) else value}"
        )
