"""Freed memory stays with a program that asks for it."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from ossicle.allocator import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        blocks = [np.ones(2**18) for _ in range(64)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
faults(2)
print(faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_loop_over_the_same_memory_faults_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    # 5 rounds of 128 MB would be 160,000 pages.
    assert int(done.stdout) < 5_000
