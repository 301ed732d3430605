"""Threads that wait for each other sleep soon, unless the user has said how they wait."""

import os
import re
import subprocess
import sys

import pytest

from ossicle.waiting import SPIN_COUNT, wait_briefly


@pytest.mark.parametrize("own", [{"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": ""}])
def test_what_the_user_has_set_stays(own: dict[str, str]) -> None:
    environment = dict(own)
    wait_briefly(environment)
    assert environment == own


def test_a_command_says_how_threads_wait_before_torch_asks() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "ossicle", "doctor"],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},  # which libgomp obeys as it is loaded
        capture_output=True,
        text=True,
        check=True,
    )
    counts = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not counts:
        pytest.skip("torch has another OpenMP than libgomp here")
    assert set(counts) == {SPIN_COUNT}
