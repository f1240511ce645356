"""Programs that nobody trusts, executed where they can harm nothing, and judged from outside.

::

    Sandbox ── Lane, one per core ── judge.py ── fork_server.py ── a child for each program
    (here)     (a thread)            tests       warm, in          no right but to compute,
                                                 bubblewrap        one sample, then killed
"""

from megatron.neox.evaluation.sandbox.backends import Backend, Limits, choose_backend
from megatron.neox.evaluation.sandbox.lanes import Sandbox, Trial, Verdict

__all__ = ["Backend", "Limits", "Sandbox", "Trial", "Verdict", "choose_backend"]
