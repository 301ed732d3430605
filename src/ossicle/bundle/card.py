"""The model card of a bundle: README.md with the header that the Hugging Face Hub reads."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ossicle.bundle.schema import CARD
from ossicle.data import modality_of
from ossicle.errors import BundleRefused

# Licenses that the Hub knows by these names; any other is "other", and its name follows.
HUB_LICENSES = frozenset(
    "apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear gpl-2.0 gpl-3.0 lgpl-3.0 agpl-3.0 mpl-2.0 cc0-1.0 "
    "cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 openrail isc zlib unlicense wtfpl pddl odc-by odbl unknown".split()
)
LICENSE_KEYS = ("license", "license_name", "license_link")
BY_AUTHORS = "Trained by its authors on"  # how the card of published weights names the data
LICENSE = "## License\n\n"  # the last part


@dataclass(frozen=True, kw_only=True)
class Card:
    """The model card, written to README.md. Empty parts are left out."""

    title: str = ""
    data: str = ""  # the training data, in a sentence
    fingerprint: str = ""  # of the training data
    protocol: str = ""  # how the test data were selected, in a sentence
    metrics: Sequence[str] = ()  # of the test data, one line each
    limits: str = ""  # what it was not tested on, beside what follows from the rest


def card_text(config: Mapping[str, Any], card: Card) -> str:
    license = config["weights_license"]
    if "members" in config:
        name, modality = "ensemble", modality_of("sound")
        what = f"the mean of {len(config['members'])} models"
    elif "model" in config:
        name, modality = config["model"]["name"], modality_of("sound")
        what = f"a `{name}` at {config['frontend']['rate']} Hz"
    else:
        name, modality = config["head"]["name"], modality_of(config["encoder"]["modality"])
        what = f"a `{name}` head on the frozen encoder `{Path(config['encoder']['name']).name}`, which is not included"
    header = {
        **license_header(license),
        "library_name": "ossicle",
        "pipeline_tag": modality.hub_task,
        "tags": [*modality.hub_tags, modality.hub_task, name],
    }
    labels = config["labels"]
    count = f"one of {len(labels)} labels" if config["task"] == "single-label" else f"any of {len(labels)} labels"
    if modality.timed:
        count += f" in windows of {config['window']['seconds']:g} s"
    parts = [
        f"# {card.title or name}",
        f"Predicts {count} ({what}, written by ossicle {config['library_version']}).",
        '## Use\n\n```python\nimport ossicle\n\nmodel = ossicle.load("this folder")\n'
        f'prediction = model.predict("{modality.example}")\nprint(prediction.top, prediction.rows)\n```\n\n'
        f"```\nossicle predict THIS_FOLDER {modality.example_file}\n```",
        "## Training data\n\n" + _joined(card.data, f"Fingerprint: `{card.fingerprint}`" if card.fingerprint else ""),
        f"## Protocol\n\n{card.protocol}",
        "## Metrics\n\n" + "\n".join(f"- {line}" for line in card.metrics),
        "## Labels\n\n" + _label_table(config["labels"], config["thresholds"]),
        "## Limits\n\n" + _joined(card.limits, _limits(config["task"], modality.noun, measured=bool(card.metrics))),
        LICENSE + license_sentences(license),
    ]
    text = "\n\n".join(part for part in parts if not part.endswith("\n\n"))
    return f"{_front(header)}\n\n{text}\n"


def read_card(folder: Path) -> str:
    """The text of a bundle's card; empty where there is none that can be read."""
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def fingerprints_of(card: str) -> list[str]:
    """The fingerprints of the training data in the text of a card."""
    return re.findall(r"^Fingerprint: `(.+)`$", card, re.M)


def trained_by_authors(card: str) -> list[str]:
    """The data set that the card of published weights names as that of their training."""
    return re.findall(rf"^{BY_AUTHORS} (.+?)\. ", card, re.M)


def relicensed(text: str, license: str) -> str:
    """A card with this license of the weights.

    Raises: BundleRefused for a card whose header is none.
    """
    opened = re.match(r"---\n(.*?)^---\n(.*)", text, re.M | re.S)
    front, body = opened.groups() if opened else ("{}", f"\n{text}")
    try:
        header = {key: value for key, value in (yaml.safe_load(front) or {}).items() if key not in LICENSE_KEYS}
    except (yaml.YAMLError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BundleRefused(f"the header of the model card, README.md, is not valid YAML ({reason}).") from error
    body = body.partition(LICENSE)[0] + LICENSE + license_sentences(license) + "\n"
    return f"{_front(license_header(license) | header)}\n{body}"


def license_header(license: str | None) -> dict[str, str]:
    """The license as the Hub reads it."""
    name = (license or "other").lower()
    if name == "other" or name in HUB_LICENSES:
        return {"license": name}
    return {"license": "other", "license_name": str(license)}


def license_sentences(license: str | None) -> str:
    known = f"The weights: {license}." if license else "No license is stated for these weights."
    return f"{known} The code that runs them, ossicle, is Apache-2.0."


def _limits(task: str, noun: str, *, measured: bool) -> str:
    sentences = [
        "The metrics are of the test data above; on other data they may be lower."
        if measured
        else "How well it predicts has not been measured here."
    ]
    if task == "single-label":
        sentences.append(f"Each {noun} gets one of the labels, also one to which none applies.")
    return " ".join(sentences)


def _front(header: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True)}---"


def _label_table(labels: Sequence[str], thresholds: Sequence[float] | None) -> str:
    if thresholds is None:
        return "\n".join(f"- {_cell(label)}" for label in labels)
    lines = [f"| {_cell(label)} | {threshold:.4f} |" for label, threshold in zip(labels, thresholds, strict=True)]
    return "\n".join(["| label | threshold |", "|---|---|", *lines])


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
