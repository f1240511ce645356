#!/usr/bin/env bash
# Mine a corpus as PolyCoder's was made: crawl, then clone and extract a batch of repositories at a time, then
# leave out exact copies. Give the same command again after a stop of any kind, and it goes on.
#
#   GITHUB_TOKEN=... tools/collect/collect_data.sh [FOLDER]
#
# The very commits of an earlier run, without a crawl and without a token:
#
#   COMMITS=Data/Commits tools/collect/collect_data.sh Again
#
# FOLDER (default: Data) gets
#   TopLists/    LANGUAGE-top-repos.txt, manifest.jsonl, crawl.json          gh_crawler.py
#   Commits/     what became of each repository, and the commit of it        clone_repo.py
#   Extracted/   shards of source files, a folder a batch                    extract_code.py
#   Code/        the same without copies: what is to be tokenized            deduplicate.py
#
# Variables, with what they are when they are not set:
#   LANGUAGES     PolyCoder's twelve, as in C,C#,Go     BATCH           1000 repositories on the disk at once
#   MIN_STARS     50                                    CLONE_WORKERS   16
#   LIMIT         25000 repositories of each language   CLONE_TIMEOUT   1800 seconds for a repository
#   PUSHED_SINCE  2020-01-01                            MAX_REPOSITORY  10737418240 bytes
#   API_URL       https://api.github.com/graphql        ALLOW_PROTOCOL  https alone
#   MIN_TOKENS    100, shorter files are left out       MAX_BYTES       1048576, larger files are
#   WORKERS       the processor cores, for extraction and deduplication
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ ${1:-} == -* || $# -gt 1 ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    [[ $# -eq 1 && ($1 == -h || $1 == --help) ]] && exit 0
    exit 2
fi
folder=${1:-Data}
batch=${BATCH:-1000}
workers=(${WORKERS:+--workers "$WORKERS"})

# What becomes of a batch: its name, and how clone_repo.py is told of it.
collect() {
    local name=$1 clones=$folder/.clones/$1 extracted=$folder/Extracted/$1 commits=$folder/Commits/$1.jsonl shard
    shift
    mkdir -p "$folder/.clones" "$folder/Commits" "$folder/Extracted" "$folder/.shards"
    if [[ ! -e $commits ]]; then
        # Once all is cloned it stays as it is: what is extracted must not change below the extraction.
        if [[ ! -e $clones/.cloned ]]; then
            "$here/clone_repo.py" "$@" --output "$clones" \
                ${CLONE_WORKERS:+--workers "$CLONE_WORKERS"} ${CLONE_TIMEOUT:+--timeout "$CLONE_TIMEOUT"} \
                ${MAX_REPOSITORY:+--max-bytes "$MAX_REPOSITORY"} ${ALLOW_PROTOCOL:+--allow-protocol "$ALLOW_PROTOCOL"}
            touch "$clones/.cloned"
        fi
        if compgen -G "$clones/*/*/*/" > /dev/null; then
            "$here/extract_code.py" --input "$clones" --output "$extracted" --resume "${workers[@]}" \
                ${MIN_TOKENS:+--min-tokens "$MIN_TOKENS"} ${MAX_BYTES:+--max-bytes "$MAX_BYTES"}
        fi
        cp "$clones/clones.jsonl" "$commits.partial"
        mv "$commits.partial" "$commits"
    fi
    rm -rf "$clones"
    for shard in "$extracted"/*.parquet; do
        if [[ -e $shard ]]; then ln -f "$shard" "$folder/.shards/$name-${shard##*/}"; fi
    done
}

if [[ -n ${COMMITS:-} ]]; then
    if ! compgen -G "$COMMITS/*.jsonl" > /dev/null; then
        echo "COMMITS=$COMMITS holds no .jsonl file; it is the folder Commits of an earlier run" >&2
        exit 2
    fi
    for record in "$COMMITS"/*.jsonl; do
        collect "$(basename "$record" .jsonl)" --from-manifest "$record"
    done
else
    "$here/gh_crawler.py" --output "$folder/TopLists" \
        ${LANGUAGES:+--languages "$LANGUAGES"} ${MIN_STARS:+--min-stars "$MIN_STARS"} ${LIMIT:+--limit "$LIMIT"} \
        ${PUSHED_SINCE:+--pushed-since "$PUSHED_SINCE"} ${API_URL:+--api-url "$API_URL"}
    total=$(cat "$folder"/TopLists/*-top-repos.txt | wc -l)
    for ((first = 0; first < total; first += batch)); do
        collect "$(printf '%07d-%d' "$first" "$batch")" --input "$folder/TopLists" --first "$first" --count "$batch"
    done
fi

"$here/deduplicate.py" --input "$folder/.shards" --output "$folder/Code" --resume "${workers[@]}"
rm -rf "$folder/.shards" "$folder/.clones"
echo "next: tools/preprocess_data.py --input $folder/Code ..."
