"""Registries: names, options, suggestions, files and entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.errors import InputError, UnknownPartError, UserError
from megatron.neox.plugins import REGISTRIES, Registry, load_plugins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def parts() -> Registry[object]:
    """Two parts of a kind of its own."""
    registry: Registry[object] = Registry("part", yaml_key="part_type")

    @registry.register("plain")
    def plain(x: int) -> int:
        """Give it back.

        More words.
        """
        return x

    @registry.register("scaled")
    def scaled(x: int, *, factor: int, offset: int = 0) -> int:
        """Multiply and add."""
        return x * factor + offset

    return registry


def test_parts_are_found_by_name_and_listed_by_name(parts: Registry[object]) -> None:
    assert [part.name for part in parts] == ["plain", "scaled"]
    assert "plain" in parts
    assert "other" not in parts
    assert parts.part("plain").summary == "Give it back."
    assert list(parts.part("scaled").options) == ["factor", "offset"]


def test_build_hands_over_what_is_asked_for(parts: Registry[object]) -> None:
    assert parts.build("plain", 3, options=None, offset=9) == 3
    assert parts.build("scaled", 3, options={"factor": 2}, offset=1, unknown=5) == 7
    assert parts.build("scaled", 3, options={"factor": 2, "offset": 4}, offset=1) == 10


def test_an_unknown_name_lists_the_known(parts: Registry[object]) -> None:
    with pytest.raises(UnknownPartError) as caught:
        parts.get("scaed")
    assert str(caught.value).splitlines()[:3] == [
        "no part is named 'scaed' (YAML key 'part_type')",
        "  did you mean scaled?",
        "  known: plain, scaled",
    ]


def test_unknown_and_missing_options(parts: Registry[object]) -> None:
    with pytest.raises(UserError, match=r"part 'scaled' has no option facto; did you mean factor\?"):
        parts.build("scaled", 1, options={"facto": 1})
    with pytest.raises(UserError, match="part 'scaled' needs the option factor"):
        parts.build("scaled", 1)


@pytest.mark.parametrize("value", ["3", 1.5, True, None, [1]])
def test_an_option_of_another_type(parts: Registry[object], value: object) -> None:
    with pytest.raises(UserError, match=r"part 'scaled': option factor is int, not "):
        parts.build("scaled", 1, options={"factor": value})


def test_two_modules_cannot_share_a_name(parts: Registry[object]) -> None:
    def other(x: int) -> int:
        return x

    other.__module__ = "elsewhere"
    with pytest.raises(UserError, match=r"part 'plain' is registered twice: by .* and by elsewhere"):
        parts.register("plain")(other)


def test_a_file_registers_its_parts(tmp_path: Path) -> None:
    from megatron.neox.plugins import hooks

    path = tmp_path / "my_hook.py"
    path.write_text(
        "from megatron.neox.plugins import hooks\n"
        "@hooks.register('of_a_file')\n"
        "class Mine:\n"
        "    '''Does nothing.'''\n"
    )
    load_plugins([str(path)])
    load_plugins([str(path)])  # the second time it is known
    assert hooks.part("of_a_file").summary == "Does nothing."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a file"),
        ("import nonexistent_module_x", "ModuleNotFoundError: No module named 'nonexistent_module_x'"),
        ("1/0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_cannot_be_loaded(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_plugins([str(path)])


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(InputError, match="plugin no_such_package_x"):
        load_plugins(["no_such_package_x"])


def test_entry_points_are_loaded_and_a_broken_one_is_told(tmp_path: Path) -> None:
    """In a process of its own, for entry points are read once."""
    for name, body in (("good", "from megatron.neox.plugins import activations\n"
                        "@activations.register('from_a_package')\n"
                        "def double(x):\n    '''Twice x.'''\n    return 2 * x\n"),
                       ("bad", "import nonexistent_module_x\n")):  # fmt: skip
        (tmp_path / f"neox_{name}.py").write_text(body)
        info = tmp_path / f"neox_{name}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: neox-{name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[neox.plugins]\n{name} = neox_{name}\n")
    code = (
        "from megatron.neox.plugins import activations\n"
        "from megatron.neox.errors import UnknownPartError\n"
        "print(activations.part('from_a_package').summary)\n"
        "try:\n    activations.get('absent')\n"
        "except UnknownPartError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert lines[0] == "Twice x."
    assert (
        lines[-1]
        == "  not loaded: bad (neox-bad 0.1): ModuleNotFoundError: No module named 'nonexistent_module_x'"
    )


def test_kinds_have_names_of_their_own() -> None:
    kinds = [registry.kind for registry in REGISTRIES]
    assert len(kinds) == len(set(kinds))
    for kind in (
        "model",
        "tokenizer",
        "optimizer",
        "schedule",
        "activation",
        "norm",
        "hook",
        "sampler",
        "task",
    ):
        assert kind in kinds


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_built_in_part_says_what_it_is(registry: Registry[object]) -> None:
    for part in registry:
        assert part.summary.endswith("."), f"{part.name}: {part.summary!r}"
