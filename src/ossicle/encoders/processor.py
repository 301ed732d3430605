"""Front end settings in a folder of `transformers`, from whichever of the library's files.

A processor of several parts is one file, `processor_config.json`, with a section for each of them; a lone feature
extractor or image processor is `preprocessor_config.json`. If both exist, the section has priority, as in the
library. Missing values are assumed, and each is a sentence in `Encoder.assumed`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle.encoders.pretrained import import_transformers
from ossicle.errors import BundleRefused, first_line
from ossicle.files import read_json

PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
SECTIONS = {"sound": ("feature_extractor", "audio_processor"), "image": ("image_processor",)}
# A file of a single part may have no section; these keys identify the part.
KINDS = {"sound": "feature_extractor_type", "image": "image_processor_type"}
# A section and a file that describe another front end alone.
INSTEAD = {"image": ("video_processor", "video_preprocessor_config.json")}


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """The settings of a front end, their file, and the assumed values."""

    file: Path
    settings: dict[str, Any] | None
    """None if no file describes it."""
    assumed: list[str] = field(default_factory=list)

    def get(self, key: str, default: Any) -> Any:
        """A setting, or the default, which is then recorded as assumed."""
        value = (self.settings or {}).get(key)
        if value is None:
            self.assumed.append(f"{key}={json.dumps(default)}")
            return default
        return value

    def count(self, key: str, default: int) -> int:
        """A whole number of 1 or more."""
        return whole(self.file, key, self.get(key, default))

    def switch(self, key: str, default: bool) -> bool:
        """A true or a false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise BundleRefused(f"{self.file}: {key} is {value!r}; true or false is expected.")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number; a default with negligible effect is not recorded."""
        value = (self.settings or {}).get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise BundleRefused(f"{self.file}: {key} is {value!r}; a finite number is expected.")
        return float(value)

    def make(self, kind: Any, **default: Any) -> Any:
        """An object of the library with these settings, or if no file has any, with those of `default`.

        Raises: BundleRefused for settings that the class does not take.
        """
        try:
            return kind(**default) if self.settings is None else kind.from_dict(dict(self.settings))
        except Exception as error:  # the checks of a configuration have no common root
            raise BundleRefused(f"{self.file}: {first_line(error)}") from error

    def sentences(self) -> tuple[str, ...]:
        """What was assumed, for the user."""
        if not self.assumed:
            return ()
        where = f"no {PREPROCESSOR} or {PROCESSOR} in {self.file.parent} describes it"
        if self.settings is not None:
            where = f"{self.file} does not set it"
        return (f"The encoder's front end is assumed to have {', '.join(self.assumed)}: {where}.",)


def read_front_end(folder: Path, *, modality: str) -> FrontEnd:
    """Finds the settings of the front end of audio or images in the files of a folder.

    Raises: BundleRefused for a file that cannot be read, or with a front end of video only.
    """
    for name in (PROCESSOR, PREPROCESSOR):
        file = folder / name
        content = read_json(file, refused=BundleRefused)
        for section in SECTIONS[modality]:
            if content.get(section) is not None:
                if not isinstance(content[section], dict):
                    raise BundleRefused(f"{file}: {section} is {content[section]!r}; a JSON object is expected.")
                return FrontEnd(file=file, settings=content[section])
        others = {*sum(SECTIONS.values(), ()), *(section for section, _ in INSTEAD.values())} & content.keys()
        if content and not others and (name == PREPROCESSOR or KINDS[modality] in content):
            return FrontEnd(file=file, settings=content)
    section, video = INSTEAD.get(modality, ("", ""))
    if section and (section in read_json(folder / PROCESSOR, refused=BundleRefused) or (folder / video).is_file()):
        raise BundleRefused(f"{folder}: found only a processor of video; expected one of images.")
    return FrontEnd(file=folder / PREPROCESSOR, settings=None)


def refuse_other_extractor(front: FrontEnd, *, wanted: Sequence[str]) -> None:
    """Raises BundleRefused if the files name another class of feature extractor."""
    named = (front.settings or {}).get("feature_extractor_type") or (front.settings or {}).get("image_processor_type")
    if named is not None and named not in wanted:
        raise BundleRefused(f"{front.file}: the front end is a {named}; expected {' or '.join(wanted)}.")


def image_class(front: FrontEnd, *, default: str) -> Any:
    """The library's class for the image processor that the files name, the one that does with Pillow if there is one.

    Args:
        default: of the family, where they name none

    Raises: BundleRefused for a name that is not an image processor of the library.
    """
    settings = front.settings or {}
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type") or default
    # Three spellings of one class: that of older versions, with torchvision, with Pillow.
    base = re.sub(r"(Fast|Pil)$", "", str(named)).replace("FeatureExtractor", "ImageProcessor")
    library = import_transformers()
    kind = getattr(library, f"{base}Pil", None) or getattr(library, base, None)
    if kind is None or not re.fullmatch(r"\w+ImageProcessor", base):
        raise BundleRefused(f"{front.file}: {named!r} is not an image processor of transformers {library.__version__}.")
    return kind


def whole(file: Path, key: str, value: Any) -> int:
    """The value, if it is a whole number of 1 or more.

    Raises: BundleRefused for any other.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BundleRefused(f"{file}: {key} is {value!r}; expected a whole number of at least 1.")
    return value
