"""Published weights by name: the catalogue as data, the download, and the local store. No torch."""

from ossicle.catalog.rows import (
    GENERAL,
    Checkpoint,
    checkpoint,
    default_checkpoint,
    find_checkpoint,
    list_checkpoints,
    megabytes,
    shapes_digest,
    similar_names,
)

__all__ = [
    "GENERAL",
    "Checkpoint",
    "checkpoint",
    "default_checkpoint",
    "find_checkpoint",
    "list_checkpoints",
    "megabytes",
    "shapes_digest",
    "similar_names",
]
