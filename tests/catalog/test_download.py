"""One file over HTTP, from a server that stalls, breaks off, lies and redirects."""

import hashlib
import http.client
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from tests.catalog.server import Server, breaks_off, redirects, says, serving, stalls

from ossicle.catalog import download as module
from ossicle.catalog.download import download
from ossicle.errors import WeightsRefused

URL = "https://host.example/releases/v1/weights.pt"
PATH = "/releases/v1/weights.pt"
CONTENT = b"PK\x03\x04" + bytes(range(256)) * 2000
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def target(server: Server, tmp_path: Path) -> Path:
    server.files[PATH] = CONTENT
    return tmp_path / "got" / "weights.pt"


def parts(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_nothing_is_beside_it(server: Server, target: Path) -> None:
    got = download(URL, target, size=len(CONTENT), sha256=HASH)
    assert target.read_bytes() == CONTENT and (got.bytes, got.sha256) == (len(CONTENT), HASH)
    assert parts(target) == ["weights.pt"]
    assert server.requests[0][1]["accept-encoding"] == "identity"


def test_a_transfer_that_breaks_off_goes_on_where_it_was(server: Server, target: Path) -> None:
    server.behave = [breaks_off(100_000), breaks_off(50_000)]
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT
    assert server.sent == len(CONTENT)
    assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_stalled_transfer_is_given_up_and_taken_up(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.behave = [stalls(100_000, 0.5)]
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT and server.sent == len(CONTENT)


def test_a_later_process_goes_on_where_an_earlier_one_was_stopped(server: Server, target: Path) -> None:
    server.always = breaks_off(0)
    server.behave = [breaks_off(200_000)]
    with pytest.raises(
        WeightsRefused, match=r"ended the transfer at 200,000 of 512,004 bytes, in 5 attempts; 0.2 MB are kept"
    ):
        download(URL, target, sha256=HASH)
    assert parts(target) == ["weights.pt.part", "weights.pt.part.json"]
    server.always, server.sent = None, 0
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT and server.sent == len(CONTENT) - 200_000


def test_what_is_complete_but_not_renamed_is_not_fetched_again(server: Server, target: Path) -> None:
    server.always = breaks_off(0)
    server.behave = [breaks_off(200_000)]
    with pytest.raises(WeightsRefused):
        download(URL, target)
    target.with_name("weights.pt.part").write_bytes(CONTENT)
    server.always, server.sent = None, 0
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT and server.sent == 0


def test_another_version_of_the_file_begins_anew(server: Server, target: Path) -> None:
    server.always = breaks_off(0)
    server.behave = [breaks_off(200_000)]
    with pytest.raises(WeightsRefused):
        download(URL, target)
    server.always = None
    server.files[PATH] = new = CONTENT[:4] + CONTENT[:3:-1]
    download(URL, target)
    assert target.read_bytes() == new


def test_a_server_without_ranges_begins_anew(server: Server, target: Path) -> None:
    server.behave = [
        lambda handler, content: handler.answer(200, content, limit=1000),
        lambda handler, content: handler.answer(200, content),
    ]
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT and "range" not in server.requests[1][1]


def test_a_wrong_part_is_not_appended(server: Server, target: Path) -> None:
    wrong = {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}
    server.behave = [breaks_off(1000), says(206, CONTENT, headers=wrong)]
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT


def test_a_file_of_another_hash_is_thrown_away(server: Server, target: Path) -> None:
    with pytest.raises(WeightsRefused, match=f"has the SHA-256 {HASH}, expected 0123...;?"):
        download(URL, target, sha256="0123")
    assert parts(target) == []


def test_a_resumed_file_of_another_hash_is_fetched_once_from_the_start(server: Server, target: Path) -> None:
    server.always = breaks_off(0)
    server.behave = [breaks_off(1000)]
    with pytest.raises(WeightsRefused):
        download(URL, target)
    server.always = None
    part = target.with_name("weights.pt.part")
    part.write_bytes(b"PK\x03\x04" + bytes(996))  # of the right length, and damaged
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer, says_what",
    [
        (says(200, CONTENT[:1000]), r"the server offers 1,000 bytes, expected 512,004"),
        (says(200, CONTENT + b"more"), r"the server offers 512,008 bytes, expected 512,004"),
        (says(200, CONTENT[:1000], length=512_004), r"ended the transfer at 1,000 of 512,004 bytes, in 5 attempts"),
        (
            says(200, b"<!DOCTYPE html><html><head><title>Sign in to\n the wifi</title>", kind="text/html"),
            r"offers a web page \(Sign in to the wifi\), expected 512,004",
        ),
        (says(404, b""), "the server answered 404 Not Found"),
        (says(403, b""), "the server answered 403 Forbidden"),
        (says(503, b""), "the server answered 503 Service Unavailable, in 5 attempts"),
        (says(416, b""), "the server answered 416"),
        (says(206, CONTENT, headers={"Content-Range": "bytes 7-9/10"}), "another part of the file"),
    ],
)
def test_answers_that_are_not_the_file_are_said(server: Server, target: Path, answer, says_what: str) -> None:
    server.always = answer
    with pytest.raises(WeightsRefused, match=says_what) as refusal:
        download(URL, target, size=len(CONTENT))
    assert str(refusal.value).startswith(server.address + PATH) and "\n" not in str(refusal.value)
    assert not target.exists()


@pytest.mark.parametrize(
    "body, said",
    [
        (b"\xef\xbb\xbf \n<html><body>no title", r"sent a web page instead of a file of weights"),
        (b'{"error": "rate\nlimited"}', r"sent JSON \({\"error\": \"rate limited\"}\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "sent a pointer of Git LFS"),
        (("<p>" + "ä" * 600).encode(), "sent a web page"),
    ],
)
def test_texts_in_place_of_weights_are_recognized(server: Server, target: Path, body: bytes, said: str) -> None:
    server.always = says(200, body)
    with pytest.raises(WeightsRefused, match=said):
        download(URL, target)
    assert not target.exists()


def test_the_beginning_of_a_safetensors_file_is_no_text(server: Server, target: Path) -> None:
    server.files[PATH] = (123).to_bytes(8, "little") + b'{"x": 1}'  # its first byte is a brace
    download(URL, target)


def test_a_server_that_sends_without_end_is_stopped(server: Server, target: Path) -> None:
    def endless(handler, content) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"4000\r\nPK" + bytes(0x3FFE) + b"\r\n")

    server.always = endless
    with pytest.raises(WeightsRefused, match="sends more than 100,000 bytes"):
        download(URL, target, size=100_000)
    assert target.with_name("weights.pt.part").stat().st_size <= 100_000


def test_a_busy_server_is_asked_again_when_it_says(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.behave = [says(429, headers={"Retry-After": "7"}), says(429, headers={"Retry-After": "9999"})]
    download(URL, target)
    assert pauses == [7.0, 60.0]


# --- redirects -------------------------------------------------------------------------------------------------------


def test_redirects_are_followed_and_a_resumed_file_too(server: Server, target: Path) -> None:
    with serving() as other:
        other.files["/blob"] = CONTENT
        other.behave = [breaks_off(1000)]
        server.always = redirects(other.address + "/blob")
        download(URL, target, sha256=HASH)
        assert other.requests[1][1]["range"] == "bytes=1000-"


def test_a_token_goes_to_its_host_alone(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSSICLE_MIRROR_TOKEN", "secret")
    with serving() as other:
        other.files["/blob"] = CONTENT
        server.behave = [redirects("/here"), redirects(other.address + "/blob")]
        download(URL, target)
        assert [headers.get("authorization") for _, headers in server.requests] == ["Bearer secret"] * 2
        assert [headers.get("authorization") for _, headers in other.requests] == [None]


def test_a_password_in_the_mirrors_address_is_sent_and_never_shown(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_MIRROR", server.address.replace("//", "//me:p%40ss@") + "/pub/")
    server.files = {"/pub" + PATH: CONTENT}
    download(URL, target)
    assert server.requests[0][1]["authorization"] == "Basic bWU6cEBzcw=="
    server.files = {}
    with pytest.raises(WeightsRefused, match="404") as refusal:
        download(URL, target)
    assert "p%40ss" not in str(refusal.value) and "p@ss" not in str(refusal.value)


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/x", "file:///etc/passwd", "gopher:x"])
def test_redirects_to_other_schemes_are_refused(server: Server, target: Path, to: str) -> None:
    server.always = redirects(to)
    with pytest.raises(WeightsRefused, match="the server redirects to .* none is followed"):
        download(URL, target)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    transfer = module._Transfer("https://host.example/x", Path("x.part"), size=None)
    answer = http.client.HTTPMessage()
    answer["Location"] = "http://host.example/x"
    response = type("Response", (), {"headers": answer, "__enter__": lambda self: self, "__exit__": lambda *_: None})()
    with pytest.raises(WeightsRefused, match="from https to http none is followed"):
        transfer._redirected("https://host.example/x", response)
    assert transfer._redirected("http://host.example/x", response) == "http://host.example/x"


def test_redirects_in_a_circle_end(server: Server, target: Path) -> None:
    server.always = redirects("/again")
    with pytest.raises(WeightsRefused, match="more than 10 redirects"):
        download(URL, target)


# --- the machine -----------------------------------------------------------------------------------------------------


def test_without_a_network_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("it waited"))
    with pytest.raises(module.NotReached, match=r"weights.pt: the connection failed \(Name or service not known\)\.$"):
        download(URL, tmp_path / "weights.pt")


def test_a_proxy_is_used_unless_the_host_is_excepted(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OSSICLE_MIRROR")
    monkeypatch.setenv("http_proxy", server.address)
    server.files = {"http://host.example/x": CONTENT}
    download("http://host.example/x", target)
    assert server.requests[0][0] == "http://host.example/x"
    monkeypatch.setenv("no_proxy", "host.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "unknown")))
    with pytest.raises(WeightsRefused, match="unknown"):
        download("http://host.example/x", target)


@pytest.mark.parametrize("mirror", ["mirror.example", "file:///tmp", "ftp://127.0.0.1", "http://127.0.0.1:port"])
def test_a_mirror_that_is_no_address_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("OSSICLE_MIRROR", mirror)
    with pytest.raises(WeightsRefused, match=f"^{mirror}/releases/v1/weights.pt: this cannot be fetched"):
        download(URL, tmp_path / "weights.pt")


def test_a_full_disk_is_said_before_anything_arrives(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(WeightsRefused, match=r"got: 67.6 MB are needed there and 1.0 MB are free; make space"):
        download(URL, target)
    assert server.sent < len(CONTENT) or not target.exists()


def test_a_disk_that_fills_up_keeps_what_has_arrived(server: Server, target: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(
            WeightsRefused, match=r"got: File too large at .* MB of the download; .*the same command goes on"
        ):
            download(URL, target, sha256=HASH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert parts(target) == ["weights.pt.part", "weights.pt.part.json"]
    download(URL, target, sha256=HASH)
    assert target.read_bytes() == CONTENT
    assert server.requests[-1][1]["range"] == "bytes=200000-"


def test_interrupting_says_that_it_goes_on(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: object, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Transfer, "_receive", stop)
    with pytest.raises(KeyboardInterrupt, match=r"Interrupted at 0.0 MB; the same command goes on"):
        download(URL, target)
