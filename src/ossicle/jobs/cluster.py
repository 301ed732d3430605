"""Recordings heard by actors of a Ray cluster. Needs the extra `cluster`; every node reads recordings and model at the
paths that they have here.

Ray Data spreads the files over actors, each with a model of its own, and starts again what a lost node was at. What
they heard comes back here and is kept as by any other job, so tables and resuming are the same.
"""

import json
import os
import re
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from ossicle.audio import AudioInfo
from ossicle.errors import AudioError, ExtraMissing, JobStopped
from ossicle.inference import Row
from ossicle.inference.predictor import Predictor
from ossicle.jobs.folders import InferenceConfig, Outcome, read_stamped, rows_of
from ossicle.jobs.store import Stamp, Store

ANSWER_SECONDS = 10.0  # until an address that does not answer counts as dead
FILES_AT_ONCE = 8  # that an actor is handed, and decodes ahead of each other


def import_ray() -> Any:
    """Ray with its data library, or ExtraMissing with what to install."""
    try:
        import ray
        import ray.data
    except Exception as error:  # installed but broken counts as absent
        raise ExtraMissing(
            f"a cluster needs Ray, which does not work here ({error}): pip install 'ossicle[cluster]'"
        ) from error
    return ray


class ClusterWorkers:
    """Actors of a cluster that hear files.

    Args:
        open_predictor: makes the model inside each actor; it is sent there
        number: of actors
        address: of the cluster, as `ray.init` takes it; "local" starts one on this machine
    """

    def __init__(
        self, open_predictor: Callable[[], Predictor], *, number: int, config: InferenceConfig, address: str
    ) -> None:
        self.open_predictor, self.number, self.config, self.address = open_predictor, number, config, address

    def __call__(self, places: Sequence[str], store: Store) -> Generator[Outcome]:
        if not places:
            return
        ray = import_ray()
        own = not ray.is_initialized()
        try:
            if own:
                try:
                    check_reached(self.address)
                    ray.init(address=self.address, log_to_driver=False)
                except Exception as error:  # of several kinds, and none of them ours
                    raise JobStopped(f"{self.address}: there is no Ray cluster ({reason_of(error)}).") from error
            # Actors work in another folder: they read a path from the root on, and name the file as it was given.
            files = ray.data.from_items([{"place": place, "path": os.path.abspath(place)} for place in places])
            heard = files.map_batches(
                Actor,
                fn_constructor_args=(self.open_predictor, self.config),
                concurrency=self.number,
                batch_size=FILES_AT_ONCE,
            )
            for answer in heard.iter_rows():
                yield keep(json.loads(answer["answer"]), store)
        except ray.exceptions.RayError as error:
            raise JobStopped(
                f"{self.address}: the cluster failed ({reason_of(error)}); what is done is kept, and the same command "
                "with --resume goes on."
            ) from error
        finally:
            if own:
                ray.shutdown()


class Actor:
    """One model on one node: names and paths of files in, what was heard out."""

    def __init__(self, open_predictor: Callable[[], Predictor], config: InferenceConfig) -> None:
        self.predictor, self.config = open_predictor(), config

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        paths = [str(path) for path in batch["path"]]
        with closing(read_stamped(paths, self.predictor.rate, track=self.config.track)) as reading:
            pairs = zip(batch["place"], reading, strict=True)
            answers = [self.answer(str(place), blocks) for place, (_, blocks) in pairs]
        return {"answer": [json.dumps(answer) for answer in answers]}

    def answer(self, place: str, blocks: Any) -> dict[str, Any]:
        about: dict[str, Any] = {}
        try:
            rows = list(rows_of(place, blocks, about, predictor=self.predictor, config=self.config))
        except AudioError as error:
            return {"place": place, "error": str(error)}
        stamp, info = asdict(about["stamp"]), asdict(about["info"])
        return {"place": place, "rows": [asdict(row) for row in rows], "stamp": stamp, "info": info}


def check_reached(address: str) -> None:
    """Raises OSError where nobody answers at HOST:PORT; Ray would try for minutes. Other addresses are left to it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def reason_of(error: Exception) -> str:
    """The line that says what happened first, of an error that holds the tracebacks of several processes."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"^[\w.]*(Error|Exception)\b.*", text, re.MULTILINE)
    return found[0] if found else text.splitlines()[0]


def keep(answer: dict[str, Any], store: Store) -> Outcome:
    """Writes the part of a file that was heard elsewhere."""
    place = answer["place"]
    if "error" in answer:
        return Outcome(file=place, error=answer["error"])
    info = AudioInfo(**answer["info"])
    about = {"stamp": Stamp(**answer["stamp"]), "info": info}
    store.write(place, (Row(**row) for row in answer["rows"]), about=about)
    return Outcome(file=place, seconds=info.seconds)
