"""The house: who may import whom, what runs without torch, where pickles may be opened, what is public."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ossicle

SOURCE = Path(ossicle.__file__).parent

# Above the line no torch; a package imports from its own line and from those above it.
ROOMS_WITHOUT_TORCH = [
    "types",
    "errors",
    "files",
    "settings",
    "catalog",
    "allocator",
    "waiting",
    "audio",
    "metrics",
    "data",
    "inference",
    "jobs",
    "runtime",
]
ROOMS_WITH_TORCH = [
    "kernels",
    "devices",
    "draws",
    "frontend",
    "models",
    "weights",
    "bundle",
    "recognizer",
    "encoders",
    "tuning",
    "ensemble",
    "loading",
    "report",
    "timeline",
    "embedding",
    "hear",
    "evaluation",
    "soup",
    "training",
    "export",
    "bench",
    "demo",
    "cli",
    "__main__",
]
ROOMS = ROOMS_WITHOUT_TORCH + ROOMS_WITH_TORCH
# Tensors in, tensors out: the network knows nothing of sound or files, nor the front end of networks.
FORBIDDEN = {
    ("models", "frontend"),
    ("models", "audio"),
    ("models", "files"),
    ("models", "data"),
    ("frontend", "models"),
    ("frontend", "audio"),
    ("frontend", "files"),
    ("metrics", "audio"),
    ("metrics", "data"),
    ("data", "metrics"),
}
TORCH = {"torch", "lightning", "torchmetrics", "safetensors.torch"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, dotted below it, and its file."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in it, and the line; not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    unreal = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in unreal:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; the house writes ossicle.x in full"
            assert node.module is not None
            if node.module == "ossicle":
                yield from ((f"ossicle.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_every_room_has_its_place() -> None:
    found = {room_of(name) for name, _ in modules() if name}
    assert found <= set(ROOMS), f"{found - set(ROOMS)} has no place in the order of rooms"


def test_no_room_imports_from_below() -> None:
    arrows = []
    for name, path in modules():
        for imported, line in imports(path):
            if not imported.startswith("ossicle.") or not name:
                continue
            here, there = room_of(name), room_of(imported.removeprefix("ossicle."))
            if there not in ROOMS:
                continue  # a name of the package itself, such as __version__
            if ROOMS.index(there) > ROOMS.index(here) or (here, there) in FORBIDDEN:
                arrows.append(f"{path.relative_to(SOURCE)}:{line}: {here} imports {there}, which it must not know")
    assert not arrows, "\n".join(arrows)


def test_above_the_line_no_file_names_torch() -> None:
    named = [
        f"{path.relative_to(SOURCE)}:{line}: imports {imported}"
        for name, path in modules()
        if room_of(name) in ROOMS_WITHOUT_TORCH
        for imported, line in imports(path)
        if room_of(imported) in TORCH or imported in TORCH
    ]
    assert not named, "\n".join(named)


def test_above_the_line_everything_runs_where_torch_cannot_be_imported() -> None:
    names = [f"ossicle.{name}" for name, _ in modules() if room_of(name) in ROOMS_WITHOUT_TORCH]
    blocked = (
        "import sys, importlib\n"
        f"for name in {sorted(TORCH)!r}: sys.modules[name] = None\n"
        f"for name in {['ossicle', 'ossicle.cli', *names]!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_one_file_may_open_pickles() -> None:
    opening = {"torch", "pickle", "joblib", "dill"}
    for _, path in modules():
        if path == SOURCE / "weights" / "unpickle.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "load" and isinstance(node.value, ast.Name):
                assert node.value.id not in opening, f"{path}:{node.lineno} calls {node.value.id}.load"
        for imported, line in imports(path):
            assert room_of(imported) not in opening - {"torch"}, f"{path}:{line} imports {imported}"


def test_matplotlib_is_imported_only_where_something_is_drawn() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, ossicle.report; assert 'matplotlib' not in sys.modules"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- the public surface ----------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert set(ossicle.__all__) == {
        "__version__",
        *("load", "load_encoder", "create_model", "list_models", "read_dataset"),
        *("train", "tune", "sweep", "evaluate", "predict_files", "embed_files", "export_model"),
        *("TrainConfig", "TuneConfig", "TrainResult", "FoldResult", "SweepResult", "Evaluation", "Prediction"),
        *("Embeddings", "FileResults", "Dataset", "Recognizer", "Encoder", "EventRules", "Exported", "OssicleError"),
    }
    assert set(ossicle.__all__) <= set(dir(ossicle))


@pytest.mark.parametrize("name", ossicle.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ossicle, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ossicle' has no attribute 'lod'"):
        _ = ossicle.lod  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import ossicle; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[0] for name in done.stdout.split()}
    assert not rooms & {"torch", "numpy", "lightning", "yaml", "typer"}
