"""Processes that predict files, each with a model of its own."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from typing import Any

from ossicle.errors import JobStopped
from ossicle.inference.predictor import Predictor
from ossicle.jobs.folders import InferenceConfig, Outcome, predict_each
from ossicle.jobs.store import ResultStore

AHEAD = 4  # files handed out for each process, so that none waits


class Workers:
    """Processes that share files.

    Args:
        open_predictor: makes the model inside each process; it is sent there
        number: of processes
    """

    def __init__(self, open_predictor: Callable[[], Predictor], *, number: int, config: InferenceConfig) -> None:
        self.open_predictor, self.number, self.config = open_predictor, number, config

    def __call__(self, places: Sequence[str], store: ResultStore) -> Generator[Outcome]:
        # A process that was not forked: threads of torch and of decoders do not survive a fork.
        context = get_context("spawn")
        start = (self.open_predictor, store, self.config, logging.getLogger("ossicle").isEnabledFor(logging.INFO))
        others = set(active_children())
        with ProcessPoolExecutor(self.number, context, initializer=_start, initargs=start) as pool:
            try:
                left = iter(places)
                running = {pool.submit(_predict, place) for place in islice(left, AHEAD * self.number)}
                while running:  # no more than so many are handed out: a folder may hold a million
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(_predict, place) for place in islice(left, len(done))}
                    yield from (one.result() for one in done)
            except BrokenProcessPool:
                raise JobStopped(
                    "a worker process died, perhaps because memory ran out: what is done is kept, and the same command "
                    "with --resume continues, best with fewer --workers."
                ) from None
            except BaseException:  # interrupted: the files in work, which may have hours, are not waited for
                for process in set(active_children()) - others:
                    process.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)


_process: dict[str, Any] = {}


def _start(open_predictor: Callable[[], Predictor], store: ResultStore, config: InferenceConfig, shown: bool) -> None:
    if shown:  # what the parent's log would show, such as channels that cancel each other
        logging.getLogger("ossicle").addHandler(logging.StreamHandler())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _process.update(predictor=open_predictor(), store=store, config=config)


def _end_with_parent() -> None:
    """A parent that is killed ends no process: the others would wait for ever, and hold their memory."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _predict(place: str) -> Outcome:
    (outcome,) = predict_each([place], _process["store"], predictor=_process["predictor"], config=_process["config"])
    return outcome
