"""Workers in two environments that answer one at a time.

No imports but Python's own: a peer's environment has no more.
"""

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def quietly(function, *args):
    """Calls a function that may print; the peer prints its shapes."""
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*args)


def work(make_side, tasks, *, threads):
    """Answers requests, one JSON line each, until the input ends.

    Args:
        make_side: called once; its result is the first argument of every task
        tasks: functions by name
    """
    import warnings

    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(threads)
    answers = sys.stdout
    side = quietly(make_side)
    for line in sys.stdin:
        task, *args = json.loads(line)
        answer = quietly(tasks[task], side, *args)
        gc.collect()
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """A process that runs `SCRIPT --work NAME`, asked one thing at a time.

    Args:
        kernels: what OSSICLE_KERNELS is for one of ours
    """

    def __init__(self, python, name, *, script, kernels="auto"):
        env = dict(os.environ)
        if name != "peer":
            env["OSSICLE_KERNELS"] = kernels
            env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "src"), env.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [str(python), str(Path(script).resolve()), "--work", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout

    def ask(self, task, *args):
        self.requests.write(json.dumps([task, *args]) + "\n")
        self.requests.flush()
        line = self.replies.readline()
        if not line:
            raise SystemExit(f"the worker ended while it did {task} {args}")
        return json.loads(line)

    def close(self):
        self.requests.close()
        self.process.wait()
