"""Copies found and left out: exact ones, near ones, and files that an index says were seen elsewhere.

`exact.py` and `near.py` are stages over shards, `folder.py` does what is exact on a folder of files. Both stages sort
what they know of the files into buckets (`parts.py`), settle one bucket after another, and drop rows (`rewrite.py`):
no phase holds the whole corpus. For near copies `near_settings.py` says what makes them, `shingles.py` and `minhash.py`
propose pairs, `sketches.py` settles them (`sketch_files.py`: on the disk), and `clusters.py` links what is settled.
"""
