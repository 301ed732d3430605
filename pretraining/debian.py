"""Debian packages: fetched with apt-get, streamed member by member, never installed."""

import os
import re
import shutil
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def fetch(names: list[str], folder: Path) -> None:
    """Downloads the packages that `folder` does not hold; a name that the archive does not have stops the build."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        need("apt-get", "this recipe reads Debian 12 packages; run it on Debian or in a container of it")
        subprocess.run(["apt-get", "-q", "download", *missing], cwd=folder, check=True)


def fetch_with_libraries(names: list[str], folder: Path) -> list[Path]:
    """Downloads programs with those of their libraries that this machine lacks, and lists the packages."""
    done = folder / "complete"
    if not done.exists():
        need("apt-get", "this recipe reads Debian 12 packages; run it on Debian or in a container of it")
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "-q", "install", "--download-only", "--reinstall", "--no-install-recommends", "-y"]
        command += ["-o", f"Dir::Cache::archives={folder}", *names]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        done.touch()
    return sorted(folder.glob("*.deb"))


def package_file(name: str, folder: Path) -> Path:
    return sorted(folder.glob(f"{name}_*.deb"))[-1]


def version_of(package: Path) -> str:
    """The version in the name of a package file, in which apt-get writes ':' as %3a."""
    return urllib.parse.unquote(package.name.split("_")[1])


@contextmanager
def members(package: Path) -> Iterator[Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]]:
    """The members of a package in the order of its archive: path, entry, and the archive to read the entry from."""
    need("dpkg-deb", "it reads Debian packages")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield ((entry.name.removeprefix("./"), entry, archive) for entry in archive)
        process.stdout.read()
    if process.returncode:
        raise OSError(f"{package}: dpkg-deb ended with {process.returncode}; fetch the package again")


def unpack(packages: list[Path], folder: Path) -> Path:
    """Unpacks packages over each other into `folder`, once for a list of them."""
    done, names = folder / "complete", "\n".join(package.name for package in packages)
    if not done.exists() or done.read_text() != names:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        relocate(folder)
        done.write_text(names)
    return folder


def relocate(root: Path) -> None:
    """Lets festival find its voices, languages and dictionaries below `root`: its scripts name them from /usr on."""
    for script in sorted(root.glob("usr/share/festival/**/*.scm")):
        text = script.read_bytes()
        if b"/usr/share/festival" in text:
            script.write_bytes(text.replace(b"/usr/share/festival", bytes(root / "usr/share/festival")))


def environment(root: Path) -> dict[str, str]:
    """Environment variables with which programs unpacked below `root` find the libraries unpacked with them."""
    libraries = [str(path) for pattern in ("*", "*/pulseaudio") for path in sorted(root.glob(f"usr/lib/{pattern}"))]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(path for path in libraries if "linux-gnu" in path)}


def copy_out(stream: IO[bytes], path: Path) -> None:
    with open(path, "wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)


def safe_name(path: str) -> str:
    """A path as one name of a file, of plain characters."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", path).strip("_.")[-150:]


def need(program: str, reason: str) -> None:
    if shutil.which(program) is None:
        raise SystemExit(f"{program} was not found: {reason}.")
