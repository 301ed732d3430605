"""The model card of a bundle: README.md with the header that the Hugging Face Hub reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ossicle.data import modality_of


@dataclass(frozen=True, kw_only=True)
class Card:
    """The model card, written to README.md. Empty parts are left out."""

    title: str = ""
    data: str = ""  # the training data, in a sentence
    fingerprint: str = ""  # of the training data
    protocol: str = ""  # how the test data were selected, in a sentence
    metrics: Sequence[str] = ()  # of the test data, one line each
    limits: str = ""  # what it was not tested on


def card_text(config: Mapping[str, Any], card: Card) -> str:
    license = config["weights_license"]
    if "model" in config:
        name, modality = config["model"]["name"], modality_of("sound")
        what = f"a `{name}` at {config['frontend']['rate']} Hz"
    else:
        name, modality = config["head"]["name"], modality_of(config["encoder"]["modality"])
        what = f"a `{name}` head on the frozen encoder `{Path(config['encoder']['name']).name}`, which is not included"
    header = {
        "license": license.lower() if license else "other",
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
        f"## Limits\n\n{card.limits}",
        "## License\n\n"
        + (f"The weights: {license}." if license else "No license is stated for these weights.")
        + " The code that runs them, ossicle, is Apache-2.0.",
    ]
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if not part.endswith("\n\n")) + "\n"


def _label_table(labels: Sequence[str], thresholds: Sequence[float] | None) -> str:
    if thresholds is None:
        return "\n".join(f"- {_cell(label)}" for label in labels)
    lines = [f"| {_cell(label)} | {threshold:.4f} |" for label, threshold in zip(labels, thresholds, strict=True)]
    return "\n".join(["| label | threshold |", "|---|---|", *lines])


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
