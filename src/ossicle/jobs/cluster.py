"""A Ray cluster, and files predicted by its actors. Needs the extra `cluster`; every node reads files and model at the
paths that they have here.

Ray Data spreads the files over actors, each with a model of its own, and starts again what a lost node was doing. Rows
come back here and are stored as by any other job, so tables and resuming are the same.
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from ossicle.audio import AudioInfo
from ossicle.errors import AudioError, ExtraMissing, JobStopped
from ossicle.inference.predictor import Predictor
from ossicle.inference.rows import Row
from ossicle.jobs.folders import InferenceConfig, Outcome, read_stamped, rows_of
from ossicle.jobs.store import ResultStore, Stamp

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
    """Actors of a cluster that share files.

    Args:
        open_predictor: makes the model inside each actor; it is sent there
        number: of actors
        address: of the cluster, as `ray.init` takes it; "local" starts one on this machine
    """

    def __init__(
        self, open_predictor: Callable[[], Predictor], *, number: int, config: InferenceConfig, address: str
    ) -> None:
        self.open_predictor, self.number, self.config, self.address = open_predictor, number, config, address

    def __call__(self, places: Sequence[str], store: ResultStore) -> Generator[Outcome]:
        if not places:
            return
        with connected(self.address) as ray:
            # Actors work in another folder: they read a path from the root on, and name the file as it was given.
            files = ray.data.from_items([{"place": place, "path": os.path.abspath(place)} for place in places])
            predicted = files.map_batches(
                Actor,
                fn_constructor_args=(self.open_predictor, self.config),
                concurrency=self.number,
                batch_size=FILES_AT_ONCE,
            )
            for row in predicted.iter_rows():
                yield keep(json.loads(row["result"]), store)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; a connection that is there already is used, and kept.

    Args:
        address: as `ray.init` takes it; "local" starts a cluster on this machine

    Raises: ExtraMissing without Ray, JobStopped where there is no cluster or it fails.
    """
    ray = import_ray()
    own = not ray.is_initialized()
    try:
        if own:
            try:
                check_reached(address)
                ray.init(address=address, log_to_driver=False)
            except Exception as error:  # of several kinds, and none of them ours
                raise JobStopped(f"{address}: there is no Ray cluster ({reason_of(error)}).") from error
        yield ray
    except ray.exceptions.RayError as error:
        raise JobStopped(
            f"{address}: the cluster failed ({reason_of(error)}); what is done is kept, and the same command with "
            "--resume continues."
        ) from error
    finally:
        if own:
            ray.shutdown()


class Actor:
    """One model on one node: names and paths of files in, their rows as JSON out."""

    def __init__(self, open_predictor: Callable[[], Predictor], config: InferenceConfig) -> None:
        self.predictor, self.config = open_predictor(), config

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        paths = [str(path) for path in batch["path"]]
        with closing(read_stamped(paths, self.predictor.rate, track=self.config.track)) as reading:
            pairs = zip(batch["place"], reading, strict=True)
            results = [self.predict(str(place), blocks) for place, (_, blocks) in pairs]
        return {"result": [json.dumps(result) for result in results]}

    def predict(self, place: str, blocks: Any) -> dict[str, Any]:
        about: dict[str, Any] = {}
        try:
            rows = list(rows_of(place, blocks, about, predictor=self.predictor, config=self.config))
        except AudioError as error:
            return {"place": place, "error": str(error)}
        stamp, info = asdict(about["stamp"]), asdict(about["info"])
        return {"place": place, "rows": [asdict(row) for row in rows], "stamp": stamp, "info": info}


def check_reached(address: str) -> None:
    """Raises OSError where nothing answers at HOST:PORT; Ray would try for minutes. Other addresses are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def reason_of(error: Exception) -> str:
    """The line that says what happened first, of an error that holds the tracebacks of several processes."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"^[\w.]*(Error|Exception)\b.*", text, re.MULTILINE)
    return found[0] if found else text.splitlines()[0]


def keep(result: dict[str, Any], store: ResultStore) -> Outcome:
    """Stores the part of a file that was predicted elsewhere."""
    place = result["place"]
    if "error" in result:
        return Outcome(file=place, error=result["error"])
    info = AudioInfo(**result["info"])
    about = {"stamp": Stamp(**result["stamp"]), "info": info}
    store.write(place, (Row(**row) for row in result["rows"]), about=about)
    return Outcome(file=place, seconds=info.seconds)
