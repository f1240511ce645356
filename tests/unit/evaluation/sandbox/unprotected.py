"""A harness as there are many, with nothing to hold a program: its tests beside it, in one process.

python unprotected.py FOLDER print|judge     (FOLDER holds program.py and test.py)
"""

import json
import resource
import sys
from pathlib import Path

folder, what = Path(sys.argv[1]), sys.argv[2]
for limit, value in (("AS", 4 << 30), ("CPU", 10), ("FSIZE", 64 << 20), ("CORE", 0)):
    number = getattr(resource, f"RLIMIT_{limit}")
    resource.setrlimit(number, (value, resource.getrlimit(number)[1]))
names: dict = {}
try:
    exec((folder / "program.py").read_text(), names)
    if what == "print":
        sys.stdout.write(f"answer: {json.dumps(names['f'](1), ensure_ascii=False)}\n")
        sys.stdout.flush()
    else:
        exec((folder / "test.py").read_text(), names)
        names["check"](names["f"])
finally:
    sys.stdout.write(f"\nmegabytes:{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")
    sys.stdout.flush()
