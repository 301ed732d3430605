"""Download one file over HTTP: resumed where it broke off, checked while it arrives, whole or not there.

What has arrived is in NAME.part beside the file, and NAME.part.json says of which version of the file: the server is
asked for the rest of this very version (Range with If-Range), and begins anew if it has another. Redirects are followed
here and not by the library: never from https to http, and credentials stay with the host that they are for.

Variables: HTTPS_PROXY, HTTP_PROXY, NO_PROXY and SSL_CERT_FILE as everywhere; OSSICLE_OFFLINE or HF_HUB_OFFLINE forbid
the network; OSSICLE_MIRROR takes the place of scheme and host of every address (a path may follow it), and
OSSICLE_MIRROR_TOKEN goes to it as a bearer token.
"""

import base64
import contextlib
import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from ossicle import __version__
from ossicle.catalog.rows import megabytes
from ossicle.errors import WeightsRefused
from ossicle.files import beside, existing_folder, write_json

logger = logging.getLogger(__name__)

TIMEOUT = 20.0  # seconds without a byte until a connection counts as stalled
ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds before the second; doubled before each further one
LONGEST_PAUSE = 60.0  # that a server may ask for
REDIRECTS = 10
BLOCK = 1 << 20  # bytes
MOST = 8 << 30  # bytes of a file whose size nobody states
SPARE = 64 << 20  # bytes that stay free on a disk
HOPELESS = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)  # no network, or not this one
AGAIN = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may change


Show = Callable[[int, int | None], None]


@contextlib.contextmanager
def _no_bar(name: str) -> Iterator[Show]:
    yield lambda done, total: None


# Shows how far a download is: called with the file's name, yields what to call with the bytes that are there and the
# size of the file, if it is known. The command line sets it; a library draws nothing.
bar: Callable[[str], AbstractContextManager[Show]] = _no_bar


class NotReached(WeightsRefused):
    """No connection, or none that lasts: the file has to come another way, or later."""


class OtherFile(WeightsRefused):
    """What arrived has another hash than expected, and was removed."""


class _Broken(Exception):
    """An attempt ended early; another may go on, unless it is the last."""

    def __init__(self, reason: str, *, pause: float | None = None, last: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.last = pause, last


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A file that is there as a whole."""

    path: Path
    bytes: int
    sha256: str


def offline() -> str | None:
    """The variable that forbids the network, if one does."""
    on = {"1", "true", "yes", "on"}
    return next((n for n in ("OSSICLE_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(n, "").lower() in on), None)


def mirrored(url: str) -> str:
    """The address, with the mirror in the place of its scheme and host where there is one; without credentials."""
    return _without_credentials(_address(url))


def download(url: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> Downloaded:
    """Fetches a file; an unfinished download of it goes on where it broke off.

    Args:
        size: bytes that it must have
        sha256: hexadecimal digits that its hash must begin with

    Raises: WeightsRefused, in one sentence: what the server answered, too little space, or another file than wanted.
    """
    part = beside(path, ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists() and part.stat().st_size > 0
    while True:
        digest = _Transfer(url, part, size=size).run(path.name)
        found = digest.hexdigest()
        if sha256 is None or found.startswith(sha256):
            break
        forget(path)
        if not resumed:
            raise OtherFile(
                f"{mirrored(url)}: the file that arrived has the SHA-256 {found}, expected {begins(sha256)}."
            )
        logger.warning(f"{path.name}: what was there of it belongs to another file; it is fetched from the start.")
        resumed = False
    count = part.stat().st_size
    os.replace(part, path)
    _state(part).unlink(missing_ok=True)
    return Downloaded(path=path, bytes=count, sha256=found)


def begins(sha256: str) -> str:
    """A hash of which perhaps the first digits alone are known."""
    return sha256 if len(sha256) == 64 else f"{sha256}..."


def forget(path: Path) -> None:
    """Removes what has arrived of a file."""
    part = beside(path, ".part")
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """Refuses where a disk has too little space, before anything is written.

    Raises: WeightsRefused.
    """
    free = shutil.disk_usage(existing_folder(folder)).free
    if free < needed + SPARE:
        raise WeightsRefused(
            f"{folder}: {megabytes(needed + SPARE)} are needed there and {megabytes(free)} are free; make space, or "
            "name another folder (OSSICLE_CACHE, or --to)."
        )


class _Transfer:
    """The attempts to complete one file."""

    def __init__(self, url: str, part: Path, *, size: int | None) -> None:
        self.url, self.part, self.size = _address(url), part, size
        self.shown = _without_credentials(self.url)
        self.opener = urllib.request.build_opener(_NoRedirect())
        self.digest = hashlib.sha256()
        self.done = 0

    def run(self, name: str) -> Any:
        """Fetches what is missing and returns the hash of all of it."""
        self._begin()
        failures, most = 0, 0
        with bar(name) as show:
            while True:
                try:
                    self._attempt(show)
                    return self.digest
                except _Broken as broken:
                    failures, most = (1 if self.done > most else failures + 1), max(most, self.done)
                    if broken.last or failures >= ATTEMPTS:
                        tried = "" if broken.last else f", in {ATTEMPTS} attempts"
                        kept = f"; {megabytes(self.done)} are kept, and the same command goes on" if self.done else ""
                        raise NotReached(f"{self.shown}: {broken}{tried}{kept}.") from None
                    time.sleep(
                        min(LONGEST_PAUSE, PAUSE * 2 ** (failures - 1) if broken.pause is None else broken.pause)
                    )
                except KeyboardInterrupt:
                    raise KeyboardInterrupt(
                        f"Interrupted at {megabytes(self.done)}; the same command goes on from there."
                    ) from None

    def _begin(self) -> None:
        """Takes up what an earlier process left, if it is of this address."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads(_state(self.part).read_text()).get("url") == self.shown:
                with open(self.part, "rb") as file:
                    self.digest = hashlib.file_digest(file, "sha256")
                    self.done = file.tell()
                return
        self._restart()

    def _restart(self) -> None:
        self.digest, self.done = hashlib.sha256(), 0
        self.part.unlink(missing_ok=True)
        _state(self.part).unlink(missing_ok=True)

    def _attempt(self, show: Show) -> None:
        version = self._version()
        if self.done and self.size is not None and self.done > self.size or self.done and version is None:
            self._restart()
        headers = {"Range": f"bytes={self.done}-", "If-Range": version or ""} if self.done else {}
        with self._open(headers) as response:
            total = self._settle(response)
            if total is not None and self.done == total:
                return
            try:
                self._receive(response, show, total)
            except (http.client.HTTPException, TimeoutError, ConnectionError, urllib.error.URLError) as error:
                raise _Broken(_reason(error)) from None
        if total is not None and self.done < total:
            raise _Broken(f"the server ended the transfer at {self.done:,} of {total:,} bytes")
        if self.size is not None and self.done != self.size:
            found = self.done
            self._restart()
            raise WeightsRefused(f"{self.shown}: the file has {found:,} bytes, expected {self.size:,}.")

    def _open(self, headers: dict[str, str]) -> Any:
        """The response to a request, after redirects.

        Raises: WeightsRefused for one that no other attempt would change, _Broken for others.
        """
        url, credentials = self.url, _credentials(self.url)
        for _ in range(REDIRECTS + 1):
            plain = _without_credentials(url)
            if urlsplit(plain).scheme not in ("http", "https"):
                raise WeightsRefused(
                    f"{plain}: this cannot be fetched; expected an address of https, as OSSICLE_MIRROR too."
                )
            own = {"User-Agent": f"ossicle/{__version__}", "Accept-Encoding": "identity"}
            try:
                if credentials and _origin(url) == _origin(self.url):
                    own["Authorization"] = credentials
                request = urllib.request.Request(plain, headers=own | headers)
                response: Any = self.opener.open(request, timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                response = error
            except (ValueError, http.client.InvalidURL) as error:  # a port or a proxy that is none
                raise WeightsRefused(f"{plain}: this cannot be fetched: {error}.") from None
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                inner = getattr(error, "reason", error)
                raise _Broken(_reason(error), last=isinstance(inner, HOPELESS)) from None
            if response.status not in (301, 302, 303, 307, 308):
                return response
            url = self._redirected(url, response)
        raise WeightsRefused(f"{self.shown}: more than {REDIRECTS} redirects.")

    def _redirected(self, url: str, response: Any) -> str:
        with response:
            target = urljoin(url, response.headers.get("Location") or "")
        schemes = urlsplit(url).scheme, urlsplit(target).scheme
        if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
            raise WeightsRefused(
                f"{self.shown}: the server redirects to {_without_credentials(target).partition('?')[0]}, and from "
                f"{schemes[0]} to {schemes[1]} none is followed."
            )
        return target

    def _settle(self, response: Any) -> int | None:
        """Compares an answer with the request; returns the size of the whole file, if it is stated."""
        status, length = response.status, response.headers.get("Content-Length")
        length = int(length) if length and length.isdecimal() else None
        if status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range") or "")
            if match is None or int(match[1]) != self.done:
                self._restart()
                raise _Broken("the server sent another part of the file than it was asked for", pause=0.0)
            total = None if match[2] == "*" else int(match[2])
        elif status == 200:
            self._restart()  # no part, or one of another version
            total = length
        elif status == 416 and self.done:
            if (response.headers.get("Content-Range") or "").rpartition("/")[2] == str(self.done):
                return self.done
            self._restart()
            raise _Broken("the server has another version of the file", pause=0.0)
        else:
            said = f"the server answered {status} {http.client.responses.get(status, '')}".rstrip()
            if status in AGAIN:
                after = response.headers.get("Retry-After") or ""
                raise _Broken(said, pause=float(after) if after.isdecimal() else None)
            raise WeightsRefused(f"{self.shown}: {said}.")
        if self.size is not None and total is not None and total != self.size:
            offer = _page_title(response) or f"{total:,} bytes"
            raise WeightsRefused(f"{self.shown}: the server offers {offer}, expected {self.size:,}.")
        if (total or 0) > MOST:
            raise WeightsRefused(f"{self.shown}: the server offers {megabytes(total or 0)}; at most {megabytes(MOST)}.")
        check_space(self.part.parent, (total or self.size or 0) - self.done)
        version = response.headers.get("ETag") or ""
        version = (not version.startswith("W/") and version) or response.headers.get("Last-Modified") or ""
        write_json(_state(self.part), {"url": self.shown, "version": version})
        return total

    def _receive(self, response: Any, show: Show, total: int | None) -> None:
        limit = self.size or total or MOST
        with self._writing() as file:
            while block := response.read1(BLOCK):
                if not self.done and (said := _not_weights(block)):
                    raise WeightsRefused(f"{self.shown}: the server sent {said} instead of a file of weights.")
                if self.done + len(block) > limit:
                    raise WeightsRefused(f"{self.shown}: the server sends more than {limit:,} bytes.")
                file.write(block)
                self.digest.update(block)
                self.done += len(block)
                show(self.done, total)
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[BinaryIO]:
        try:
            with open(self.part, "ab") as file:
                yield file
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
                raise
            raise WeightsRefused(
                f"{self.part.parent}: {error.strerror} at {megabytes(self.done)} of the download; once there is space, "
                "the same command goes on from there."
            ) from None

    def _version(self) -> str | None:
        try:
            return json.loads(_state(self.part).read_text())["version"] or None
        except (OSError, ValueError, KeyError, TypeError):
            return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _state(part: Path) -> Path:
    return beside(part, ".json")


def _address(url: str) -> str:
    """With the mirror, where there is one, and the credentials of its address."""
    if not (mirror := os.environ.get("OSSICLE_MIRROR", "").strip()):
        return url
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _credentials(url: str) -> str | None:
    """What goes into the header Authorization: the user and password of an address, or the token of the mirror."""
    parts = urlsplit(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    token = os.environ.get("OSSICLE_MIRROR_TOKEN", "").strip()
    return f"Bearer {token}" if token and os.environ.get("OSSICLE_MIRROR", "").strip() else None


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _not_weights(block: bytes) -> str | None:
    """What a text is that came in place of weights: a page of a login, a JSON error, a pointer of Git LFS."""
    try:
        text = block[:512].decode("utf-8-sig").lstrip()
    except UnicodeDecodeError as error:
        if error.start < min(len(block), 512) - 4:
            return None
        text = block[: error.start].decode("utf-8-sig").lstrip()
    if "\0" in text or not text.startswith(("<", "{", "[", "version https://git-lfs")):
        return None
    if text.startswith("version"):
        return "a pointer of Git LFS"
    if text.startswith(("{", "[")):
        return f"JSON ({_one_line(text)})"
    title = re.search(rb"<title[^>]*>(.*?)</title>", block, re.I | re.S)
    return "a web page" + (f" ({_one_line(title[1].decode(errors='replace'))})" if title else "")


def _page_title(response: Any) -> str | None:
    """What a short answer is, where it is no file."""
    kind = response.headers.get("Content-Type") or ""
    if "html" not in kind and "json" not in kind:
        return None
    with contextlib.suppress(OSError, http.client.HTTPException):
        return _not_weights(response.read(BLOCK))
    return None


def _one_line(text: str) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _reason(error: Exception) -> str:
    """Why a connection failed, in few words."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return f"nothing came for {TIMEOUT:g} s"
    if isinstance(inner, http.client.IncompleteRead):
        return "the connection broke off"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({inner.verify_message}); SSL_CERT_FILE names another list of authorities"
        )
    if isinstance(inner, OSError) and inner.strerror:
        return f"the connection failed ({inner.strerror})"
    return f"the connection failed ({_one_line(str(inner)) or type(inner).__name__})"
