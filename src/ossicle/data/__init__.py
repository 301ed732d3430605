"""From a folder or a table of recordings, texts or images to items, labels, groups and honest parts. No torch."""

from ossicle.data.check import DataReport, Problem, check_dataset
from ossicle.data.dataset import Dataset
from ossicle.data.items import Item
from ossicle.data.modalities import MODALITIES, Modality, modality_of
from ossicle.data.reading import read_dataset
from ossicle.data.shards import Shards, write_shards
from ossicle.data.splits import Split, group_ids, split_dataset, split_folds

__all__ = [
    "MODALITIES",
    "DataReport",
    "Dataset",
    "Item",
    "Modality",
    "Problem",
    "Shards",
    "Split",
    "check_dataset",
    "group_ids",
    "modality_of",
    "read_dataset",
    "split_dataset",
    "split_folds",
    "write_shards",
]
