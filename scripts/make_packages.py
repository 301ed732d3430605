"""Build every distribution, install each in an empty environment, and run it there.

    python scripts/make_packages.py dist

Writes the sdist and the wheel of `ossicle` and of `ossicle-runtime`. The wheel and the sdist of `ossicle` then run
`ossicle doctor`, one training step and a prediction on the recordings inside the package; the wheel also exports that
model, and `ossicle-runtime` has to give the same labels without torch. Needs Python alone: pip brings the rest, in the
versions of constraints.txt.
"""

import csv
import io
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE_STEP = ("--set", "epochs=1", "epoch_clips=8", "batch_size=8", "average=none", "warmup=0")


class Environment:
    """A virtual environment with nothing but what is installed into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=True)

    def run(self, program: str, *arguments: object, place: Path | None = None) -> str:
        """Runs a program of this environment; gives its standard output.

        Args:
            place: where to run it; by default in the environment's own folder

        Raises:
            SystemExit: it failed; its output is in the message
        """
        command = [str(self.folder / "bin" / program), *map(str, arguments)]
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(command, cwd=place or self.folder, env=own, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def install(self, *what: str) -> None:
        """Installs packages in the pinned versions."""
        quiet = ("--quiet", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt")
        self.run("python", "-m", "pip", "install", *quiet, *what)


def build(folder: Path, scratch: Path) -> dict[str, Path]:
    """Builds the distributions into the folder: name and kind to file."""
    builder = Environment(scratch / "build")
    builder.install("hatchling")
    files: dict[str, Path] = {}
    for name, source in {"ossicle": ROOT, "ossicle_runtime": ROOT / "packages" / "ossicle-runtime"}.items():
        builder.run("hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder, place=source)
        (files[f"{name} wheel"],) = folder.glob(f"{name}-*.whl")
        (files[f"{name} sdist"],) = folder.glob(f"{name}-*.tar.gz")
    return files


def rows(text: str) -> list[tuple[str, str, str]]:
    """Start, end and label of each row of a table of predictions."""
    return [(row["start"], row["end"], row["label"]) for row in csv.DictReader(io.StringIO(text))]


def check(environment: Environment) -> tuple[Path, list[tuple[str, str, str]]]:
    """Runs `ossicle doctor`, one training step and a prediction; gives the recording and its rows."""
    print(environment.run("ossicle", "doctor").splitlines()[0], flush=True)
    place = "import ossicle, pathlib; print(pathlib.Path(ossicle.__file__).parent / 'examples' / 'drums')"
    drums = Path(environment.run("python", "-c", place).strip())
    environment.run("ossicle", "train", drums, "-o", "run", *ONE_STEP)
    loop = min((drums / "loops").iterdir())
    found = rows(environment.run("ossicle", "predict", "run", loop, "--format", "csv"))
    if not found:
        raise SystemExit(f"{environment.folder.name} predicted nothing in {loop}.")
    return loop, found


def checks(files: dict[str, Path], scratch: Path) -> Iterator[str]:
    """Installs and runs each distribution; gives a line for each."""
    for kind in ("sdist", "wheel"):
        environment = Environment(scratch / kind)
        environment.install(f"{files[f'ossicle {kind}']}[export]" if kind == "wheel" else str(files["ossicle sdist"]))
        loop, found = check(environment)
        yield f"{files[f'ossicle {kind}'].name}: doctor, a training step and {len(found)} rows of a prediction"
    environment.run("ossicle", "export", "run", "-o", scratch / "model.onnx")
    runtime = Environment(scratch / "runtime")
    for kind in ("sdist", "wheel"):
        runtime.install("--force-reinstall", "--no-deps", str(files[f"ossicle_runtime {kind}"]))
        runtime.install(str(files[f"ossicle_runtime {kind}"]))
        without = rows(runtime.run("ossicle-runtime", scratch / "model.onnx", loop, "--format", "csv"))
        if without != found:
            raise SystemExit(
                f"{files[f'ossicle_runtime {kind}'].name} gives other rows than the model that was exported."
            )
        yield f"{files[f'ossicle_runtime {kind}'].name}: the same rows without torch"
    if "torch" in runtime.run("python", "-m", "pip", "list"):
        raise SystemExit("ossicle-runtime brings torch.")


def main() -> None:
    if len(sys.argv) > 2:
        raise SystemExit("Usage: python scripts/make_packages.py [FOLDER]")
    with tempfile.TemporaryDirectory(prefix="ossicle-packages-") as name:
        folder = Path(sys.argv[1]).resolve() if len(sys.argv) == 2 else Path(name) / "dist"
        if folder.is_dir() and any(folder.iterdir()):
            raise SystemExit(f"{folder} is not empty; name another folder.")
        done = []
        for line in checks(build(folder, Path(name)), Path(name)):
            print(line, flush=True)
            done.append(line)
    print(f"{len(done)} distributions installed in empty environments and run")


if __name__ == "__main__":
    main()
