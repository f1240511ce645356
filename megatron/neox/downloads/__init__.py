"""Files from elsewhere: fetched whole, checked, unpacked safely.

`fetch.py` brings one file over HTTP, `archive.py` unpacks a tar from a stranger, `progress.py` says how far it is,
`lock.py` keeps two runs apart, `options.py` is what the tools share; none of them knows what it carries.
`polycoder.py` is the table of what PolyCoder's authors have released, and where each piece goes;
`evaluation_sets.py` brings the files that they measured with.
"""
