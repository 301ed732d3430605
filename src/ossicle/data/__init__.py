"""From a folder or a table of recordings to items, labels, groups and honest parts. Standard library and numpy only."""

from ossicle.data.items import Dataset, Item, Task
from ossicle.data.layouts import read_dataset
from ossicle.data.splits import Split, group_ids, split_dataset, split_folds

__all__ = [
    "Dataset",
    "Item",
    "Split",
    "Task",
    "group_ids",
    "read_dataset",
    "split_dataset",
    "split_folds",
]
