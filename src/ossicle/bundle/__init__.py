"""Model bundles: save, load, find, and exchange with the Hugging Face Hub. The files are described in `schema`."""

from ossicle.bundle.card import Card, fingerprints_of, read_card, relicensed, trained_by_authors
from ossicle.bundle.convert import Converted, convert_checkpoint, read_labels
from ossicle.bundle.find import find_bundle, find_weights
from ossicle.bundle.folder import Bundle, load_bundle, open_bundle, replacing_bundle, save_bundle, write_bundle
from ossicle.bundle.hub import HUB_ID, hub_folder, push_to_hub
from ossicle.bundle.schema import CARD, CONFIG, WEIGHTS, info_config, member_names, read_bundle_config

__all__ = [
    "CARD",
    "CONFIG",
    "HUB_ID",
    "WEIGHTS",
    "Bundle",
    "Card",
    "Converted",
    "convert_checkpoint",
    "find_bundle",
    "find_weights",
    "fingerprints_of",
    "hub_folder",
    "info_config",
    "load_bundle",
    "member_names",
    "open_bundle",
    "push_to_hub",
    "read_bundle_config",
    "read_card",
    "read_labels",
    "relicensed",
    "replacing_bundle",
    "save_bundle",
    "trained_by_authors",
    "write_bundle",
]
