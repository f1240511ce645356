"""Programs that mean harm, each a function f that should add one to a number, and the harm that they do.

Texts in capitals between @ are filled in: CANARY a file, FOLDER the folder around it, PORT a TCP listener,
ABSTRACT the name of a listening abstract socket, MANY how often (few without the sandbox, else without end).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    name: str
    category: str
    program: str
    harm: str
    """How the harm shows without the sandbox: passes (tests beside it are content), marker (it prints a verdict),
    breaks (a harness that prints what it returns), hangs, dies (of a signal), canary (gone or changed),
    contacted (a listener), secret (printed), left (processes outlive it), flood, memory."""
    may_pass: bool = False
    """The function itself is right, and what it does besides must come to nothing."""
    reasons: tuple[str, ...] = ("error", "wrong", "timeout", "crash", "reply")
    """Those its verdict may have."""
    test: str = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\n"


def _programs() -> list[Hostile]:
    found: list[Hostile] = []

    def add(
        name: str, harm: str, program: str, *, may_pass: bool = False, reasons: str = "", asserts: str = ""
    ) -> None:
        wanted = tuple(reasons.split()) or ("error", "wrong", "timeout", "crash", "reply")
        test = f"def check(candidate):\n    assert {asserts}\n" if asserts else Hostile.test
        found.append(Hostile(name, category, program, harm, may_pass, wanted, test))

    category = "endless computing"
    add("plain_loop", "hangs", "def f(x):\n    while True: pass", reasons="timeout")
    add("loop_at_import", "hangs", "while True: pass", reasons="timeout")
    add(
        "ignores_signals",
        "hangs",
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
        reasons="timeout",
    )
    add("sleeps", "hangs", "import time\ndef f(x):\n    time.sleep(1000)", reasons="timeout")
    add("long_in_c", "hangs", "def f(x):\n    return sum(range(10**12))", reasons="timeout")
    add("power", "hangs", "def f(x):\n    return (7 ** 50_000_000) % 3", reasons="timeout crash")
    add("regex", "hangs", "import re\ndef f(x):\n    return re.match('(a+)+b', 'a' * 60)", reasons="timeout")
    add("thread_loops", "hangs", """
import threading
def spin():
    while True: pass
def f(x):
    for _ in range(4): threading.Thread(target=spin).start()
    spin()
""", reasons="timeout error")  # fmt: skip

    category = "processes and threads"
    add("fork_bomb", "left", """
import os, time
def f(x):
    for _ in range(@MANY@):
        if os.fork() == 0: time.sleep(30); os._exit(0)
    return x + 1
""", reasons="error")  # fmt: skip
    add("daemon", "left", """
import os, time
def f(x):
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(30)
            os._exit(0)
    except OSError: pass
    return x + 1
""", may_pass=True)  # fmt: skip
    add("fork_by_number", "left", """
import ctypes, time, os
def f(x):
    if ctypes.CDLL(None).syscall(57) == 0: time.sleep(30); os._exit(0)
    return x + 1
""", may_pass=True)  # fmt: skip
    add("vfork_and_exec", "passes", """
import subprocess
def f(x):
    return x + int(subprocess.run(["/bin/echo", "1"], capture_output=True).stdout)
""")  # fmt: skip
    add("system", "passes", "import os\ndef f(x):\n    return x + 1 if os.system('true') == 0 else 0")
    add("exec_shell", "passes", "import os\nos.execv('/bin/true', ['true'])")
    add("multiprocessing", "passes", """
from concurrent.futures import ProcessPoolExecutor
def f(x):
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(abs, -x - 1).result()
""")  # fmt: skip
    add("clone_by_number", "left", """
import ctypes, os, time
libc = ctypes.CDLL(None)
def f(x):
    if libc.syscall(56, 17, 0, 0, 0, 0) == 0: time.sleep(30); os._exit(0)
    if libc.syscall(435, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88) == 0: time.sleep(30); os._exit(0)
    return x + 1
""", may_pass=True)  # fmt: skip
    add("thread_bomb", "hangs", """
import threading, time
def f(x):
    for _ in range(@MANY@):
        threading.Thread(target=time.sleep, args=(60,)).start()
    return x + 1
""", reasons="error timeout crash")  # fmt: skip
    add("children_with_memory", "left", """
import os, time
def f(x):
    for _ in range(@MANY@):
        if os.fork() == 0:
            block = bytearray(8 << 20); time.sleep(30); os._exit(0)
    return x + 1
""", reasons="error")  # fmt: skip

    category = "memory"
    add("grows", "memory", """
def f(x):
    held = []
    for _ in range(@MANY@): held.append(bytearray(16 << 20))
    return x + 1
""", reasons="error crash timeout")  # fmt: skip
    add("one_block", "memory", "def f(x):\n    block = b'x' * (@MANY@ * (16 << 20))\n    return x + 1",
        reasons="error crash timeout")  # fmt: skip
    add("text_doubles", "memory", """
def f(x):
    text = "x" * (16 << 20)
    for _ in range(min(@MANY@, 60) - 16): text += text
    return x + 1
""", reasons="error crash timeout")  # fmt: skip
    add("shared_mapping", "memory", """
import mmap
def f(x):
    held = []
    for _ in range(@MANY@):
        block = mmap.mmap(-1, 16 << 20)
        for place in range(0, 16 << 20, 4096): block[place] = 1
        held.append(block)
    return x + 1
""", reasons="error crash timeout")  # fmt: skip
    add("memory_file", "passes", """
import os
def f(x):
    place = os.memfd_create("x")
    return x + min(1, os.write(place, b"x"))
""", reasons="error")  # fmt: skip
    add("shared_segment", "passes", """
import ctypes
def f(x):
    libc = ctypes.CDLL(None)
    number = libc.syscall(29, 0, 1 << 20, 0o1600)
    if number < 0: raise OSError("refused")
    libc.syscall(31, number, 0, 0)
    return x + 1
""", reasons="error")  # fmt: skip

    category = "disk"
    add("fills_tmp", "passes", """
def f(x):
    with open("@FOLDER@/big", "wb") as file:
        file.write(bytes(1 << 20))
    return x + 1
""", reasons="error")  # fmt: skip
    add("fills_shared_memory", "passes", """
import os
def f(x):
    name = "/dev/shm/hostile-program"
    with open(name, "wb") as file: file.write(bytes(1 << 20))
    os.unlink(name)
    return x + 1
""", reasons="error")  # fmt: skip
    add("ignores_file_size_signal", "passes", """
import signal, tempfile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def f(x):
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 20)); file.flush()
    return x + 1
""", reasons="error")  # fmt: skip
    add("many_files", "passes", """
def f(x):
    for number in range(@MANY@): open(f"@FOLDER@/{number}", "w").close()
    return x + 1
""", reasons="error")  # fmt: skip
    add("makes_folders", "passes", "import os\ndef f(x):\n    os.makedirs(f'@FOLDER@/{x}/b/c')\n    return x + 1",
        reasons="error")  # fmt: skip

    category = "output"
    add(
        "floods_output",
        "flood",
        "def f(x):\n    for _ in range(40 * @MANY@): print('x' * 1000)\n    return x + 1",
    )
    add("floods_errors", "flood", """
import sys
def f(x):
    for _ in range(40 * @MANY@): sys.stderr.write("x" * 1000)
    return x + 1
""")  # fmt: skip
    add("floods_descriptors", "flood", """
import os
def f(x):
    for _ in range(40 * @MANY@):
        for descriptor in range(1, 64):
            try: os.write(descriptor, b"x" * 1000)
            except OSError: pass
    return x + 1
""", reasons="reply timeout")  # fmt: skip

    category = "reading"
    add("reads_passwords", "passes", "def f(x):\n    return x + (len(open('/etc/passwd').read()) > 0)")
    add("reads_canary", "passes", "def f(x):\n    return x + (len(open('@CANARY@').read()) > 0)")
    add("lists_root", "passes", "import os\ndef f(x):\n    return x + (len(os.listdir('/')) > 0)")
    add("lists_home", "passes", "import os\ndef f(x):\n    return x + (len(os.listdir('@HOME@')) > 0)")
    add("environment", "secret", """
import os
print(os.environ)
def f(x): return x + len(os.environ["SECRET"])
""", reasons="error")  # fmt: skip
    add("environment_of_process", "secret", """
def f(x):
    text = open("/proc/self/environ").read()
    print(text)
    return x + ("SECRET" in text)
""")  # fmt: skip
    add("environment_of_others", "secret", """
import os
text = ""
for name in os.listdir("/proc"):
    if name.isdigit():
        try: text += open(f"/proc/{name}/environ").read()
        except OSError: pass
print(text)
def f(x): return x + ("SECRET" in text)
""", reasons="error wrong")  # fmt: skip
    add("parents_environment", "secret", """
import os
print(open(f"/proc/{os.getppid()}/environ").read())
def f(x): return x + 1
""", reasons="error")  # fmt: skip
    add("memory_of_process_one", "passes", "def f(x):\n    open('/proc/1/maps').read(); return x + 1")
    add("benchmark_answers", "passes", "def f(x):\n    return x + (len(open('@ANSWERS@', 'rb').read()) > 0)")
    add("own_source_of_harness", "passes", "def f(x):\n    return x + (len(open('@JUDGE@').read()) > 0)")
    add("climbs_from_library", "passes", """
import os, sys
def f(x):
    for entry in [*sys.path, os.path.dirname(os.__file__)]:
        for way in (entry + "/../../../../../etc/passwd", entry + "/../../../../../../etc/passwd"):
            try: return x + (len(open(way).read()) > 0)
            except OSError: pass
    return x + (len(open("/../etc/passwd").read()) > 0)
""")  # fmt: skip

    add("climbs_from_descriptors", "passes", """
import os
def f(x):
    for descriptor in [os.open("/", os.O_PATH), *range(64)]:
        for way in ("etc/passwd", "../../../../../../../etc/passwd"):
            try: return x + (len(os.read(os.open(way, os.O_RDONLY, dir_fd=descriptor), 9)) > 0)
            except OSError: pass
""", reasons="wrong error")  # fmt: skip
    add("looks_at_names_and_sizes", "passes", """
import os
def f(x):
    return x + (os.stat("@CANARY@").st_size > 0 and "canary" in os.listdir("@FOLDER@"))
""")  # fmt: skip

    category = "network"
    add("loopback", "contacted", """
import socket
def f(x):
    socket.create_connection(("127.0.0.1", @PORT@), timeout=1).close()
    return x + 1
""", reasons="error")  # fmt: skip
    add("abstract_socket", "contacted", """
import socket
def f(x):
    with socket.socket(socket.AF_UNIX) as s: s.connect("\\0@ABSTRACT@")
    return x + 1
""", reasons="error")  # fmt: skip
    add("datagrams", "passes", """
import socket
def f(x):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"x", ("127.0.0.1", @PORT@))
    return x + 1
""", reasons="error")  # fmt: skip
    add("listens", "passes", """
import socket
def f(x):
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); s.listen()
    return x + 1
""", reasons="error")  # fmt: skip
    add("outside_address", "passes", """
import socket
def f(x):
    with socket.socket() as s:
        s.setblocking(False)
        s.connect_ex(("192.0.2.1", 9))
    return x + 1
""", reasons="error")  # fmt: skip

    category = "signals"
    add(
        "kills_parent",
        "passes",
        "import os\ndef f(x):\n    os.kill(os.getppid(), 0)\n    return x + 1",
        reasons="error",
    )
    add("kills_parent_hard", "passes", "import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    return x + 1",
        reasons="error")  # fmt: skip
    add(
        "kills_group",
        "dies",
        "import os\ndef f(x):\n    os.killpg(0, 9)\n    return x + 1",
        reasons="error crash",
    )
    add("kills_all", "passes", """
import os
def f(x):
    done = 0
    for number in [-1, *range(1, 50_000)]:
        if number != os.getpid():
            try: os.kill(number, 0); done += 1
            except OSError: pass
    return x + (done > 0)
""", reasons="wrong")  # fmt: skip
    add("signal_by_queue", "passes", """
import ctypes, os
def f(x):
    info = ctypes.create_string_buffer(128)
    ctypes.memmove(info, (ctypes.c_int * 3)(0, 0, -1), 12)
    if ctypes.CDLL(None).syscall(129, os.getppid(), 0, info): raise OSError("refused")
    return x + 1
""", reasons="error")  # fmt: skip

    category = "early exit"
    add("exit_at_import", "passes", "import os\nos._exit(0)", reasons="crash")
    add("exit_in_call", "passes", "import os\ndef f(x):\n    os._exit(0)", reasons="crash")
    add("sys_exit", "passes", "import sys\ndef f(x):\n    sys.exit(0)", reasons="error")
    add(
        "exit_by_number",
        "passes",
        "import ctypes\ndef f(x):\n    ctypes.CDLL(None).syscall(231, 0)",
        reasons="crash",
    )
    add("exits_at_thread", "passes", """
import os, threading, time
threading.Timer(0.05, os._exit, [0]).start()
def f(x): time.sleep(5)
""", reasons="crash")  # fmt: skip

    category = "forged verdict"
    add("prints_marker", "marker", "print('passed')\ndef f(x): return 0", reasons="wrong")
    add("marker_everywhere", "marker", """
import os
for descriptor in range(1, 64):
    try: os.write(descriptor, b'{"passed": true, "result": "passed", "reason": "passed", "seconds": 0.1}\\npassed\\n')
    except OSError: pass
def f(x): return 0
""", reasons="reply wrong")  # fmt: skip
    add("walks_frames", "passes", """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if hasattr(value, "__code__") and value.__code__.co_name == "check":
                value.__code__ = (lambda candidate: None).__code__
        frame = frame.f_back
    return Quiet()
class Quiet:
    def __eq__(self, other): return True
""", reasons="reply")  # fmt: skip
    add("traces_tests", "passes", """
import sys
class Fine(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def tracer(frame, event, value):
    for name in list(frame.f_locals):
        if name == "candidate": frame.f_locals[name] = lambda x: Fine()
    return tracer
sys.settrace(tracer)
def f(x): return Fine()
""", reasons="reply")  # fmt: skip
    add("replaces_check", "passes", """
import builtins, sys
real = builtins.__dict__["__build_class__"]
builtins.AssertionError = type("Never", (Exception,), {})
for module in list(sys.modules.values()):
    if hasattr(module, "check"): module.check = lambda candidate: None
class Equal:
    def __eq__(self, other): return True
def f(x): return Equal()
""", reasons="reply")  # fmt: skip
    add("equals_everything", "passes", """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def f(x): return Equal()
""", reasons="reply")  # fmt: skip
    add("int_subclass", "passes", """
class Number(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return Number(0)
""", reasons="reply")  # fmt: skip
    add("int_subclass_within", "passes", """
class Number(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return [Number(0)]
""", reasons="reply", asserts="candidate(1) == [2]")  # fmt: skip
    add("pickle_bomb", "canary", """
import os
class Bomb:
    def __reduce__(self): return (os.unlink, ("@CANARY@",))
    def __eq__(self, other):
        import pickle; pickle.loads(pickle.dumps(Bomb())); return True
def f(x): return Bomb()
""", reasons="reply")  # fmt: skip
    add("ends_iteration", "passes", "def f(x): raise StopIteration", reasons="error wrong",
        asserts="all(map(candidate, [1, 2]))")  # fmt: skip
    add("swallowed_exception", "passes", """
class Odd(BaseException): pass
def f(x):
    import sys
    sys.excepthook = lambda *about: None
    import os
    raise SystemExit(0)
""", reasons="error")  # fmt: skip
    add("answers_ahead", "marker", """
import os
for descriptor in range(3, 64):
    try: os.write(descriptor, b'null\\n["t","value",2]\\n["t","value",2]\\n["t","value",3]\\npassed')
    except OSError: pass
print("passed")
def f(x): return 0
""", reasons="reply wrong")  # fmt: skip

    category = "undoing a guard"
    add("reimports_os", "canary", """
import sys
sys.modules.pop("os"); sys.modules.pop("posixpath", None)
import os
def f(x):
    os.unlink("@CANARY@"); return x + 1
""", reasons="error")  # fmt: skip
    add("reaches_posix", "canary", """
import posix
def f(x):
    posix.unlink("@CANARY@"); return x + 1
""", reasons="error")  # fmt: skip
    add("through_subclasses", "passes", """
def f(x):
    for kind in object.__subclasses__():
        if kind.__name__ == "_wrap_close":
            return x + (kind.__init__.__globals__["system"]("true") == 0)
""", reasons="error wrong")  # fmt: skip
    add("raises_limits", "passes", """
import resource
def f(x):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return x + 1
""", reasons="error")  # fmt: skip

    category = "damage"
    add("recursive_deletion", "canary", """
import os
def f(x):
    for folder, folders, files in os.walk("@FOLDER@", topdown=False):
        for name in files: os.unlink(os.path.join(folder, name))
    return x + 1
""", may_pass=True)  # fmt: skip
    add(
        "rmtree",
        "canary",
        "import shutil\ndef f(x):\n    shutil.rmtree('@FOLDER@')\n    return x + 1",
        reasons="error",
    )
    add(
        "overwrites",
        "canary",
        "def f(x):\n    open('@CANARY@', 'w').close()\n    return x + 1",
        reasons="error",
    )
    add(
        "truncates",
        "canary",
        "import os\ndef f(x):\n    os.truncate('@CANARY@', 0)\n    return x + 1",
        reasons="error",
    )
    add("renames", "canary", "import os\ndef f(x):\n    os.rename('@CANARY@', '@CANARY@.x')\n    return x + 1",
        reasons="error")  # fmt: skip
    add("closes_to_all", "canary", "import os\ndef f(x):\n    os.chmod('@CANARY@', 0o777)\n    return x + 1",
        reasons="error")  # fmt: skip
    add("changes_times", "canary", "import os\ndef f(x):\n    os.utime('@CANARY@', (0, 0))\n    return x + 1",
        reasons="error")  # fmt: skip
    add("links_away", "passes", "import os\ndef f(x):\n    os.symlink('/etc', f'@FOLDER@/{x}')\n    return x + 1",
        reasons="error")  # fmt: skip

    category = "kernel surface"

    def by_number(name: str, number: int, arguments: str, *, harm: str = "passes") -> None:
        add(name, harm, f"""
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None, use_errno=True)
    if x == 1 and libc.syscall({number}, {arguments}) < 0 and ctypes.get_errno() == 1: raise OSError("refused")
    return x + 1
""", reasons="error")  # fmt: skip

    by_number("ptrace", 101, "0x4206, os.getppid(), 0, 0")
    by_number("read_memory_of_others", 310, "os.getppid(), 0, 0, 0, 0, 0")
    by_number("new_user_namespace", 272, "0x10000000")
    by_number("mounts", 165, 'b"none", b"@FOLDER@", b"tmpfs", 0, 0')
    by_number("device_node", 133, 'b"@FOLDER@/null", 0o20666, 259')
    by_number("becomes_root", 105, "0")
    by_number("io_uring", 425, "1, ctypes.create_string_buffer(120)")
    by_number("keyctl", 250, "0, -3, 0")
    by_number("bpf", 321, "0, ctypes.create_string_buffer(128), 128")
    by_number("userfaultfd", 323, "1")
    by_number("personality", 135, "0x0008")
    by_number("handle_of_file", 303, '-100, b"/etc/passwd", ctypes.create_string_buffer(bytes([128, 0, 0, 0]), 256), '
              "ctypes.create_string_buffer(8), 0")  # fmt: skip
    by_number("landlock_again", 444, "0, 0, 1")
    by_number("seccomp_again", 317, "2, 0, ctypes.c_uint32(0x7fff0000)")
    add("undumpable", "passes", """
import ctypes
def f(x):
    if ctypes.CDLL(None).prctl(4, 1, 0, 0, 0): raise OSError("refused")
    return x + 1
""", reasons="error")  # fmt: skip
    add("limits_of_parent", "passes", """
import os, resource
def f(x):
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)
    return x + 1
""", reasons="error")  # fmt: skip

    category = "crashes"
    add("segmentation_fault", "dies", "import ctypes\ndef f(x):\n    ctypes.string_at(0)", reasons="crash")
    add("aborts", "dies", "import os\ndef f(x):\n    os.abort()", reasons="crash")
    add("unbounded_recursion", "dies", """
import sys
sys.setrecursionlimit(10**9)
class Deep:
    def __repr__(self): return repr(self)
def f(x): return eval("repr(Deep())")
""", reasons="crash error timeout")  # fmt: skip
    add("stack_in_c", "dies", """
import sys
sys.setrecursionlimit(10**9)
value = ()
for _ in range(1_000_000): value = (value,)
def f(x): return hash(value)
""", reasons="crash error timeout wrong")  # fmt: skip
    add("kills_itself", "dies", "import os\ndef f(x):\n    os.kill(os.getpid(), 9)", reasons="crash")

    category = "input"
    add("reads_input", "hangs", "def f(x):\n    return int(input()) + 1", reasons="error")
    add(
        "reads_all_input",
        "hangs",
        "import sys\ntext = sys.stdin.read()\ndef f(x): return len(text)",
        reasons="wrong",
    )
    add("reads_every_descriptor", "hangs", """
import os
def f(x):
    for descriptor in range(64):
        try: os.read(descriptor, 1)
        except OSError: pass
""", reasons="timeout wrong crash error")  # fmt: skip

    category = "replies"
    add("nul_and_surrogates", "breaks", "def f(x): return '\\0\\ud800' * 3", reasons="wrong error")
    add("deep_nesting", "breaks", """
def f(x):
    value = []
    for _ in range(100_000): value = [value]
    return value
""", reasons="reply crash")  # fmt: skip
    add(
        "contains_itself",
        "breaks",
        "def f(x):\n    value = []\n    value.append(value)\n    return value",
        reasons="reply",
    )
    add("huge_reply", "memory", "def f(x): return 'x' * (320 << 20)", reasons="reply timeout error")
    add(
        "many_small",
        "memory",
        "def f(x): return [[] for _ in range(4_500_000)]",
        reasons="reply timeout error wrong",
    )
    add("huge_number", "breaks", "def f(x): return 1 << (60 << 20)", reasons="reply timeout error wrong")
    add("not_json", "marker", """
import os
print("passed")
def f(x):
    for descriptor in range(3, 64):
        try: os.write(descriptor, b"[" * 200_000 + b"\\n\\xff\\xfe{}\\n")
        except OSError: pass
""", reasons="reply")  # fmt: skip
    add("colliding_set", "hangs", """
def f(x):
    return {number * (2**61 - 1) for number in range(60_000)}
""", reasons="reply timeout wrong error")  # fmt: skip

    category = "lingering"
    add("hangs_at_exit", "hangs", """
import atexit, time
atexit.register(time.sleep, 30)
def f(x): return x + 1
""", may_pass=True)  # fmt: skip
    add("thread_stays", "hangs", """
import threading, time
threading.Thread(target=time.sleep, args=(30,)).start()
def f(x): return x + 1
""", may_pass=True)  # fmt: skip
    add("holds_pipes", "left", """
import os, time
try:
    if os.fork() == 0: time.sleep(30); os._exit(0)
except OSError: pass
def f(x): return x + 1
""", may_pass=True)  # fmt: skip
    add("closes_descriptors", "breaks", "import os\nos.closerange(0, 64)\ndef f(x): return x + 1",
        reasons="crash reply")  # fmt: skip
    return found


PROGRAMS = _programs()
CATEGORIES = (
    "endless computing", "processes and threads", "memory", "disk", "output", "reading", "network", "signals",
    "early exit", "forged verdict", "undoing a guard", "damage", "kernel surface", "crashes", "input", "replies",
    "lingering",
)  # fmt: skip
