"""A folder on a local Ray of two workers says what one process says."""

import csv
import functools
import json
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ossicle.audio import AudioInfo
from ossicle.errors import ExtraMissing, JobStopped
from ossicle.jobs.cluster import Actor, ClusterWorkers
from ossicle.jobs.folders import InferenceConfig, run_job
from ossicle.jobs.store import ResultStore
from ossicle.loading import load, load_among

Record = Callable[..., Path]


class RayError(Exception):
    """The root of Ray's errors, of a stand-in."""


def stand_in(
    monkeypatch: pytest.MonkeyPatch,
    *,
    init: Callable[..., None] = lambda **_: None,
    from_items: Callable[..., None] = lambda items: None,
) -> None:
    """Puts something in the place of Ray."""
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=init,
        shutdown=lambda: None,
        data=SimpleNamespace(from_items=from_items),
        exceptions=SimpleNamespace(RayError=RayError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)


def start_pool(place: str, *, address: str = "local") -> None:
    pool = ClusterWorkers(load, number=2, config=InferenceConfig(), address=address)  # type: ignore[arg-type]
    next(pool([place], object.__new__(ResultStore)))


@pytest.mark.filterwarnings("ignore")
def test_two_actors_write_the_same_rows_and_name_what_is_broken(
    shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    files = [record(f"in/{number}.wav", seconds=0.5 + number / 4, seed=number) for number in range(12)]
    files[5].write_text("dear diary")
    recognizer = load(shared_bundle, device="cpu")
    run = functools.partial(run_job, files=files, predictor=recognizer, config=InferenceConfig(), formats=("csv",))
    start = functools.partial(load_among, shared_bundle, 2, device="cpu")
    pool = ClusterWorkers(start, number=2, config=InferenceConfig(), address="local")
    result = run(tmp_path / "cluster", pool=pool)
    assert [Path(outcome.file).name for outcome in result.failed] == ["5.wav"]
    run(tmp_path / "here")
    one, other = (
        list(csv.DictReader((tmp_path / name / "predictions.csv").open(newline=""))) for name in ("cluster", "here")
    )
    assert [(row["file"], row["start"], row["label"]) for row in one] == [
        (row["file"], row["start"], row["label"]) for row in other
    ]
    assert all(abs(float(a["score"]) - float(b["score"])) <= 1.1e-4 for a, b in zip(one, other, strict=True))
    assert run(tmp_path / "cluster", resume=True).before == 11  # by one process: a cluster takes long to start


def test_an_actor_says_what_the_recognizer_says(shared_bundle: Path, record: Record) -> None:
    path = record("a.wav", seconds=2.5)
    actor = Actor(functools.partial(load, shared_bundle, device="cpu"), InferenceConfig())
    batch = {"place": ["a.wav"], "path": [str(path)]}  # an actor works in another folder
    (result,) = (json.loads(text) for text in actor(batch)["result"])
    assert result["place"] == "a.wav" and {row["file"] for row in result["rows"]} == {"a.wav"}
    rows = load(shared_bundle, device="cpu").predict(path).rows
    assert [row["label"] for row in result["rows"]] == [row.label for row in rows]
    assert [row["score"] for row in result["rows"]] == pytest.approx([row.score for row in rows], abs=1e-5)
    assert AudioInfo(**result["info"]).seconds == 2.5


def test_local_is_a_cluster_of_its_own_and_no_other_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(BaseException):
        pass

    def init(*, address: str | None, **_: object) -> None:
        raise Started(address)

    stand_in(monkeypatch, init=init)
    with pytest.raises(Started, match="^local$"):
        start_pool("a.wav")


def test_what_a_cluster_reads_is_named_from_the_root_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sent(Exception):
        pass

    def from_items(items: list[dict[str, str]]) -> None:
        raise Sent(items)

    stand_in(monkeypatch, from_items=from_items)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Sent) as sent:
        start_pool("in/a.wav")
    assert sent.value.args == ([{"place": "in/a.wav", "path": str(tmp_path / "in" / "a.wav")}],)


def test_no_cluster_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nThere is more to say.")

    stand_in(monkeypatch, init=init)
    with pytest.raises(
        JobStopped, match=r"^local: there is no Ray cluster \(Could not find any running Ray instance\.\)"
    ):
        start_pool("a.wav")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}"])
def test_an_address_where_nobody_answers_is_not_handed_to_ray(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(free.getsockname()[1])  # bound, and not listened at
        stand_in(monkeypatch, init=lambda **_: pytest.fail("Ray was asked"))
        with pytest.raises(JobStopped, match=f"^{re.escape(address)}: there is no Ray cluster"):
            start_pool("a.wav", address=address)


def test_an_address_that_answers_is_handed_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    stand_in(monkeypatch, init=lambda **options: asked.append(options["address"]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(AttributeError):  # of the stand-in, which has no data
            start_pool("a.wav", address=address)
    assert asked == [address]


def test_what_fails_in_an_actor_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_items(items: object) -> None:
        raise RayError(
            "ray::Map() (pid=7)\n  in predict\nValueError: torn\n\nThe above: that\nUserCodeException: wrapped"
        )

    stand_in(monkeypatch, from_items=from_items)
    with pytest.raises(JobStopped, match=r"^local: the cluster failed \(ValueError: torn\); .* --resume continues\.$"):
        start_pool("a.wav")


def test_without_ray_the_error_says_what_to_install(
    shared_bundle: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    pool = ClusterWorkers(load, number=2, config=InferenceConfig(), address="local")  # type: ignore[arg-type]
    with pytest.raises(ExtraMissing, match=r"pip install 'ossicle\[cluster\]'"):
        run_job(
            tmp_path / "out",
            [record("a.wav")],
            load(shared_bundle, device="cpu"),
            config=InferenceConfig(),
            formats=("csv",),
            pool=pool,
        )
