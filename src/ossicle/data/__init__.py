"""From a folder or a table of recordings to items, labels, groups and honest parts. No torch."""

from ossicle.data.check import DataReport, Problem, check_dataset
from ossicle.data.items import Dataset, Item, Task
from ossicle.data.layouts import read_dataset
from ossicle.data.splits import Split, group_ids, split_dataset, split_folds

__all__ = [
    "DataReport",
    "Dataset",
    "Item",
    "Problem",
    "Split",
    "Task",
    "check_dataset",
    "group_ids",
    "read_dataset",
    "split_dataset",
    "split_folds",
]
