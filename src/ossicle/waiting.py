"""Busy waiting of OpenMP threads."""

import os
from collections.abc import MutableMapping

# By default a waiting thread of libgomp spins for milliseconds before it sleeps. If another program uses a core, this
# keeps the thread that is waited for from running: each of the hundreds of waits of a training step then lasts as long
# as the spinning. A spin count of a thousand, some microseconds, still covers the gap between two operations of a
# network; see benchmarks/results/beside.md.
SPIN_COUNT = "1000"


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Shortens the busy waiting of OpenMP threads, so that a program runs well next to others.

    Takes effect before torch is loaded, in this process and its children. `GOMP_SPINCOUNT` and `OMP_WAIT_POLICY` of the
    user are kept. The change is permanent and affects the whole process, so call it from programs, never on import.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
