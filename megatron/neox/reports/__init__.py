"""Pictures and pages made of the files that a run leaves: metrics.jsonl, generation records, results.

Reads files only; knows no engine, so a report can be made anywhere the files are.
"""
