"""tools/collect/gh_crawler.py against a server that pages, throttles and fails as GitHub's search does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.corpus.crawl.toplists import CrawlSettings, crawl, replay
from megatron.neox.downloads.fetch import Patience
from megatron.neox.downloads.lock import alone_in
from megatron.neox.errors import InputError, NeoXError, OutputError, ResourceError
from tests.integration.github_api import TOKEN, Api, answering, node, population, when
from tests.integration.training_case import ROOT

PATIENT = Patience(num_retries=8, wait_seconds=0.001, timeout_seconds=1)
UNTIL = "2025-01-01T00:00:00Z"


def run(api: Api, output: Path, **changes: Any) -> dict[str, Any]:
    languages = sorted({entry["primaryLanguage"]["name"] for entry in api.nodes})
    settings = {"languages": languages, "api_url": api.url, "created_until": UNTIL, **changes}
    return crawl(CrawlSettings(**settings), output, TOKEN, patience=PATIENT, throttled_seconds=0.001)


def command(api: Api, output: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    variables.pop("GH_TOKEN", None)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "collect" / "gh_crawler.py"), "--api-url", api.url,
         "--output", str(output), "--retry-wait", "0.001", "--throttle-wait", "0.001",
         *([] if "--from-manifest" in arguments else ["--created-until", UNTIL]), *arguments],
        env=variables | {"GITHUB_TOKEN": TOKEN} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wanted(nodes: list[dict[str, Any]], language: str) -> list[str]:
    """The list of a language as the population says, independently of any search."""
    chosen = [
        entry
        for entry in nodes
        if entry["primaryLanguage"]["name"] == language
        and entry["stargazerCount"] >= 50
        and not entry["isFork"]
        and entry["pushedAt"] >= "2020"
    ]
    chosen.sort(key=lambda entry: (-entry["stargazerCount"], entry["nameWithOwner"]))
    return [f"{entry['stargazerCount']}\t{entry['url']}" for entry in chosen]


def lists(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*-top-repos.txt"))}


def manifest(output: Path) -> list[dict[str, Any]]:
    """Without the times, which tell one run from another."""
    rows = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "asked_at"} for row in rows]


def test_every_repository_is_found_once(tmp_path: Path) -> None:
    """Of one language 2,400 with 50 stars, and 1,300 of them created within one hour."""
    nodes = population({"C#": 1500, "Go": 300}, ties=1100)
    hour = when("2016-03-04T05:00:00Z")
    nodes += [node(10_000 + at, "C#", 50, hour + at * 2) for at in range(1300)]
    nodes.append(node(20_000, "C#", 900, hour, isFork=True))
    nodes.append(node(20_001, "C#", 900, hour, pushedAt="2019-12-31T23:59:59Z"))
    with answering(Api(nodes)) as api:
        record = run(api, tmp_path / "TopLists")
    assert sorted(path.name for path in (tmp_path / "TopLists").iterdir()) == [
        ".answers", "C#-top-repos.txt", "Go-top-repos.txt", "crawl.json", "manifest.jsonl",
    ]  # fmt: skip
    for language in ("C#", "Go"):
        text = (tmp_path / "TopLists" / f"{language}-top-repos.txt").read_text()
        assert text.splitlines() == wanted(nodes, language)
    assert len(wanted(nodes, "C#")) > 3000
    assert max(api.answered.values()) == 1
    assert record["languages"]["C#"]["missing"] == 0
    rows = manifest(tmp_path / "TopLists")
    by_name = {entry["nameWithOwner"]: entry for entry in nodes}
    assert len(rows) == len(wanted(nodes, "C#")) + len(wanted(nodes, "Go"))
    for row in rows:
        entry = by_name[row["name"]]
        assert row["license"] == (entry["licenseInfo"] or {}).get("spdxId")
        assert row["commit"] == ((entry["defaultBranchRef"] or {}).get("target") or {}).get("oid")
        assert (row["id"], row["created_at"], row["pushed_at"], row["disk_kilobytes"], row["is_archived"]) == (
            entry["databaseId"], entry["createdAt"], entry["pushedAt"], entry["diskUsage"], entry["isArchived"],
        )  # fmt: skip
        assert row["query"].startswith(f'language:"{row["language"]}" stars:')


def test_the_limit_takes_those_with_most_stars(tmp_path: Path) -> None:
    """It falls among 1,500 with as many stars, which are then taken by name."""
    nodes = population({"Go": 800})
    nodes += [node(10_000 + at, "Go", 70, when("2012-01-01T00:00:00Z") + at * 90_000) for at in range(1500)]
    with answering(Api(nodes)) as api:
        run(api, tmp_path, limit=1000)
    assert (tmp_path / "Go-top-repos.txt").read_text().splitlines() == wanted(nodes, "Go")[:1000]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(1, 8))])
def test_failures_lose_nothing(tmp_path: Path, seed: int) -> None:
    """One answer in four fails, in a dozen ways; the points of the hour run out too."""
    nodes = population({"Rust": 1500}, ties=1100)
    with answering(Api(nodes, chance_of_fault=0.25, seed=seed)) as api:
        record = run(api, tmp_path)
    assert (tmp_path / "Rust-top-repos.txt").read_text().splitlines() == wanted(nodes, "Rust")
    assert record["languages"]["Rust"]["missing"] == 0


def test_points_of_the_hour(tmp_path: Path) -> None:
    """Spent ones are waited for before the next question, so that none is refused."""
    nodes = population({"Rust": 900})
    with answering(Api(nodes, points=4, hour_seconds=0.2)) as api:
        run(api, tmp_path)
    assert (tmp_path / "Rust-top-repos.txt").read_text().splitlines() == wanted(nodes, "Rust")
    assert api.refused == 0


FEW = [node(number, "Go", 50 + number, when("2015-01-01T00:00:00Z") + number) for number in range(1, 41)]

# Row 29 of the table of bad inputs: what the API does, and what becomes of it.
OUTCOMES: list[tuple[str, dict[str, Any], str]] = [
    ("401 bad token", {"token": "other"}, "InputError: refuses the token (401 Bad credentials)"),
    ("403 secondary limit with Retry-After", {"faults": ["secondary 1 s"]}, "all"),
    ("403 secondary limit without", {"faults": ["secondary"]}, "all"),
    ("403 secondary limit as a page", {"faults": ["403 page"]}, "all"),
    ("403 primary limit", {"faults": ["primary"]}, "all"),
    ("429", {"faults": ["429"]}, "all"),
    ("RATE_LIMITED in the body", {"faults": ["throttled body"]}, "all"),
    ("403 for good", {"always": "forbidden"}, "InputError: 403 Token [token] may not do this"),
    ("502", {"faults": ["502", "502 json"]}, "all"),
    ("502 for ever", {"always": "502"}, "ResourceError: 502 Bad Gateway; given up at attempt 9"),
    ("limits for ever", {"always": "429"}, "ResourceError: given up at attempt 9"),
    ("RESOURCE_LIMITS_EXCEEDED", {"faults": ["resource limits"]}, "all"),
    ("timeout", {"faults": ["stall"]}, "all"),
    ("a cut connection", {"faults": ["cut", "drop"]}, "all"),
    ("garbage", {"faults": ["garbage", "null data"]}, "all"),
    ("null nodes, once", {"faults": ["null nodes"]}, "all"),
    ("null nodes, always", {"always": "null nodes"}, "26 of 40, 14 missing"),
    ("incomplete results", {"faults": ["incomplete"]}, "all"),
    ("counted and never listed", {"never_listed": frozenset({3, 7})}, "38 of 40, 2 missing"),
    ("hidden by an organisation", {"hidden": frozenset({5})}, "39 of 40, 1 hidden"),
    ("a question it does not know", {"always": "unknown field"}, "InputError: does not understand"),
    ("another address", {"always": "moved"}, "InputError: 301 Moved Permanently"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "outcome"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES]
)
def test_what_the_api_does(tmp_path: Path, given: dict[str, Any], outcome: str) -> None:
    token = given.get("token", TOKEN)
    api = Api(FEW, **{key: value for key, value in given.items() if key != "token"})
    error: NeoXError | None = None
    with answering(api):
        settings = CrawlSettings(languages=["Go"], created_until=UNTIL, api_url=api.url)
        try:
            record = crawl(settings, tmp_path, token, patience=PATIENT, throttled_seconds=0.001)
        except NeoXError as raised:
            error = raised
    if error is not None:
        kind, _, text = outcome.partition(": ")
        assert type(error).__name__ == kind
        assert text in str(error)
        assert TOKEN not in str(error)
        assert not (tmp_path / "Go-top-repos.txt").exists()
        return
    counts = record["languages"]["Go"]
    words = [f"{counts['repositories']} of 40"]
    words += [f"{counts[word]} {word}" for word in ("missing", "hidden") if counts[word]]
    assert ", ".join(words) == {"all": "40 of 40"}.get(outcome, outcome)


def test_more_than_a_thousand_in_one_second(tmp_path: Path) -> None:
    """What no search can hand out is counted, and said."""
    nodes = [node(at + 1, "Go", 60, when("2015-01-01T00:00:00Z")) for at in range(1003)]
    with answering(Api(nodes)) as api:
        record = run(api, tmp_path)
    assert len((tmp_path / "Go-top-repos.txt").read_text().splitlines()) == 1000
    assert record["languages"]["Go"]["missing"] == 3


def test_a_page_becomes_smaller_where_the_server_gives_up(tmp_path: Path) -> None:
    with answering(Api(FEW, faults=["502", "502 json", "resource limits"])) as api:
        run(api, tmp_path)
    assert [first for _, _, first in api.asked] == [100, 50, 25, 12, 24, 48][: len(api.asked)]
    assert len(api.asked) >= 4


def kill_and_go_on(nodes: list[dict[str, Any]], tmp_path: Path, *, num_kills: int, seed: int) -> None:
    languages = ",".join(sorted({entry["primaryLanguage"]["name"] for entry in nodes}))
    chance = random.Random(seed)
    with answering(Api(nodes)) as api:
        run(api, tmp_path / "straight")
        api.answered.clear()
        kills = 0
        while kills < num_kills:
            process = command(api, tmp_path / "killed", "--languages", languages)
            before, stop = sum(api.answered.values()), chance.randrange(1, 12)
            while process.poll() is None and sum(api.answered.values()) < before + stop:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == 0:  # it was done before the signal came
                break
            kills += 1
        process = command(api, tmp_path / "killed", "--languages", languages)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    assert kills > 0
    assert lists(tmp_path / "killed") == lists(tmp_path / "straight")
    assert manifest(tmp_path / "killed") == manifest(tmp_path / "straight")
    # A kill can come between an answer and its arrival on the disk; nothing else is asked again.
    assert sum(count - 1 for count in api.answered.values()) <= kills
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_a_killed_crawl_goes_on(tmp_path: Path) -> None:
    kill_and_go_on(population({"C": 900, "Scala": 400}, ties=1100), tmp_path, num_kills=2, seed=1)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(10))
def test_a_crawl_killed_at_many_instants_goes_on(tmp_path: Path, seed: int) -> None:
    kill_and_go_on(population({"C": 900, "Scala": 400}, ties=1100), tmp_path, num_kills=5, seed=seed)


def test_the_command(tmp_path: Path) -> None:
    """From the environment's token to lists; again, from its manifest, without a network or token."""
    output, again = tmp_path / "TopLists", tmp_path / "again"
    with answering(Api(FEW, faults=["502"])) as api:
        process = command(api, output, "--languages", "Go,Klingon", GITHUB_TOKEN="", GH_TOKEN=TOKEN)
        said, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert said == (
            f"Go: 40 repositories\nKlingon: 0 repositories\nnext: tools/collect/clone_repo.py --input {output}\n"
        )
        assert "502 Bad Gateway; retry 1 of 8" in told
        assert "Klingon: no repository; is it the name" in told
        assert TOKEN not in told
        assert not any(TOKEN.encode() in path.read_bytes() for path in output.rglob("*") if path.is_file())
        process = command(api, tmp_path / "none", GITHUB_TOKEN="")
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 2
        assert told.startswith("InputError\nGitHub's search needs a token")

        process = command(api, tmp_path / "none", GITHUB_TOKEN="wrong")
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 2
        assert "refuses the token" in told
        assert "wrong" not in told
        assert told.count("\n") == 2

    process = command(api, again, "--from-manifest", str(output / "manifest.jsonl"), GITHUB_TOKEN="")
    said, told = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, f"{again}: Go 40\n"), told
    for name in ("Go-top-repos.txt", "manifest.jsonl", "crawl.json"):
        assert (again / name).read_bytes() == (output / name).read_bytes()


def test_a_finished_crawl_is_left_as_it_is(tmp_path: Path) -> None:
    with answering(Api(FEW)) as api:
        record = run(api, tmp_path)
        before, asked = lists(tmp_path), len(api.asked)
        assert run(api, tmp_path) == record
        with pytest.raises(OutputError, match=r"min_stars 50 \(now 60\); give the same options"):
            run(api, tmp_path, min_stars=60)
        assert (lists(tmp_path), len(api.asked)) == (before, asked)
        (tmp_path / "crawl.json").unlink()
        with pytest.raises(OutputError, match="is of no known crawl"):
            run(api, tmp_path)


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    good = json.dumps({"language": "C", "name": "a/b", "url": "https://github.com/a/b", "stars": 51})
    for line, problem in {
        "{": "the line: Invalid JSON",
        "[]": "the line: Input should be an object",
        '{"language": "C"}': "name: Field required; url: Field required",
        good.replace("51", '"51"'): "stars: Input should be a valid integer",
        good.replace("a/b", "a/.."): "not ORGANIZATION/PROJECT",
        good.replace('"C"', '"../C"'): "not the name of a language",
        good.replace("com/", "com/\\n"): "is no address",
    }.items():
        path.write_text(f"{good}\n{line}\n")
        with pytest.raises(InputError, match=r"manifest\.jsonl:2: ") as caught:
            replay(path, tmp_path / "out")
        assert problem in str(caught.value)
        assert not (tmp_path / "out").exists()
    path.write_text(f"{good}\n")
    assert replay(path, tmp_path / "out") == {"C": 1}
    with pytest.raises(OutputError, match="exists already"):
        replay(path, tmp_path / "out")


def test_two_crawls_at_once(tmp_path: Path) -> None:
    with answering(Api(FEW)) as api, alone_in(tmp_path), pytest.raises(OutputError, match="is running"):
        run(api, tmp_path)
    assert api.asked == []


def test_the_token_travels_encrypted_or_not_at_all(tmp_path: Path) -> None:
    for url in ("http://api.example.org/graphql", "ftp://127.0.0.1/"):
        with pytest.raises(InputError, match="only sent over https"):
            crawl(CrawlSettings(api_url=url), tmp_path / "out", TOKEN, patience=PATIENT)
    with pytest.raises(InputError, match="not shown here") as caught:
        crawl(CrawlSettings(), tmp_path / "out", f"{TOKEN}\nX-Other: 1", patience=PATIENT)
    assert TOKEN not in str(caught.value)


def test_no_language_and_times_that_are_none(tmp_path: Path) -> None:
    with answering(Api(FEW)) as api:
        for arguments, message in {
            ("--languages", ","): "--languages names none; give some, such as C,Rust",
            ("--pushed-since", "2020-13-01"): "2020-13-01 is no date such as 2020-01-31",
            ("--from-manifest", "m.jsonl", "--limit", "5"): "lists as they were; leave out --limit",
            ("--created-until", "now"): "now is no time such as 2020-01-31 or",
        }.items():
            process = command(api, tmp_path / "out", *arguments)
            told = process.communicate(timeout=60)[1]
            assert (process.returncode, message in told) == (2, True), told
    assert not (tmp_path / "out").exists()


def test_an_unreachable_server(tmp_path: Path) -> None:
    impatient = Patience(num_retries=1, wait_seconds=0.001, timeout_seconds=1)
    settings = CrawlSettings(api_url="http://127.0.0.1:9/graphql", languages=["C"])
    with pytest.raises(ResourceError, match="given up at attempt 2"):
        crawl(settings, tmp_path, TOKEN, patience=impatient)
