"""Where the built-in recordings are."""

from pathlib import Path

from ossicle.errors import DataRefused


def drums_folder() -> Path:
    """Gives the folder of drum hits and loops: inside an installed ossicle, or `examples/drums` of a checkout.

    Raises: DataRefused where neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples" / "drums", package.parent.parent / "examples" / "drums"):
        if (folder / "meta.csv").is_file():
            return folder
    raise DataRefused(
        f"{package / 'examples' / 'drums'}: the built-in recordings are missing; they come with the wheel and with a "
        "checkout, so install ossicle anew or name a folder of your own."
    )
