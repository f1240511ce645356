#!/usr/bin/env bash
# Tokenizes PolyCoder's twelve languages: INPUT/LANGUAGE becomes OUTPUT/LANGUAGE/code_text_document.{bin,idx}.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: ./preprocess_data.sh [INPUT [OUTPUT]] [OPTION...]

Tokenizes each language's folder below INPUT (testsamples/Code-sampled50) to OUTPUT/LANGUAGE/code (testsamples).
Each OPTION goes to tools/preprocess_data.py. A language without a folder is skipped and named; the first failure
stops everything.

environment:
  VOCAB_FILE   data/code-vocab.json   (tools/download_checkpoint.py vocab fetches both)
  MERGE_FILE   data/code-merges.txt
  WORKERS      16, processes that encode

examples:
  ./preprocess_data.sh
  ./preprocess_data.sh Code Preprocessed --no-append-eod --keep-bom --overwrite
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac

input=testsamples/Code-sampled50 output=testsamples
if [[ $# -gt 0 && $1 != -* ]]; then input=$1; shift; fi
if [[ $# -gt 0 && $1 != -* ]]; then output=$1; shift; fi

tool=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/tools/preprocess_data.py
made=() skipped=()

for language in C C++ C# PHP Go Java JavaScript Scala TypeScript Python Ruby Rust; do
  if [[ ! -d $input/$language ]]; then
    skipped+=("$language")
    continue
  fi
  echo "== $language" >&2
  "$tool" --input "$input/$language" --tokenizer-type GPT2BPETokenizer \
    --vocab-file "${VOCAB_FILE:-data/code-vocab.json}" --merge-file "${MERGE_FILE:-data/code-merges.txt}" \
    --output-prefix "$output/$language/code" --workers "${WORKERS:-16}" "$@" || {
    code=$?
    echo "stopped at $language; done before: ${made[*]:-none}" >&2
    exit "$code"
  }
  made+=("$language")
done

if [[ ${#made[@]} -eq 0 ]]; then
  echo "InputError" >&2
  echo "$input holds a folder of none of the languages ${skipped[*]}; give the folder that does as INPUT" >&2
  exit 2
fi
echo "done: ${made[*]}"
if [[ ${#skipped[@]} -gt 0 ]]; then echo "no folder in $input, skipped: ${skipped[*]}"; fi
