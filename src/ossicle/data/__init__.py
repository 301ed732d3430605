"""From a folder or a table of recordings, texts or images to items, labels, groups and honest parts. No torch."""

from ossicle.data.check import DataReport, Problem, check_dataset
from ossicle.data.inputs import find_items, read_input
from ossicle.data.items import Dataset, Item, Modality, Task
from ossicle.data.layouts import read_dataset
from ossicle.data.splits import Split, group_ids, split_dataset, split_folds

__all__ = [
    "DataReport",
    "Dataset",
    "Item",
    "Modality",
    "Problem",
    "Split",
    "Task",
    "check_dataset",
    "find_items",
    "group_ids",
    "read_dataset",
    "read_input",
    "split_dataset",
    "split_folds",
]
