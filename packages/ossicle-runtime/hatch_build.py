"""Takes the shared files from the repository around this folder, or from the copies in an unpacked sdist."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("__init__.py", "types.py", "errors.py", "files.py", "audio", "inference", "jobs", "runtime")


class SharedFiles(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        own = Path(self.root, "src", "ossicle")
        source = own if own.is_dir() else Path(self.root, "..", "..", "src", "ossicle")
        target = "src/ossicle" if self.target_name == "sdist" else "ossicle"
        build_data["force_include"] |= {str(source / room): f"{target}/{room}" for room in ROOMS}
        models = Path(self.root, "models")
        build_data["force_include"][str(models)] = "models" if self.target_name == "sdist" else "ossicle/runtime/models"
