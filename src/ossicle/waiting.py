"""How the threads of a program wait for each other."""

import os
from collections.abc import MutableMapping

# By default a thread of libgomp that waits for the others spins for milliseconds before it sleeps. Where another
# program has taken a core, the thread that is waited for could run in that time: each of the hundreds of waits of a
# training step then lasts as long as the spinning. A thousand turns, some microseconds, still bridge what lies between
# two operations of a network; see benchmarks/results/beside.md.
SPIN_COUNT = "1000"


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets threads that wait for each other sleep soon, so that a program goes on well beside others.

    Takes effect where it comes before torch is loaded, in this process and in those that it starts. What the user has
    set stays: `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY`. For the whole process and for good, so a program calls it, and
    never an import.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
