"""How good a model is on labeled examples."""

from ossicle.evaluation.model import ItemScores, evaluate, evaluate_items, score_items
from ossicle.evaluation.parts import CONFIG, SPLIT, Part, choose_part
from ossicle.evaluation.result import Evaluation, bootstrap_groups

__all__ = [
    "CONFIG",
    "SPLIT",
    "Evaluation",
    "ItemScores",
    "Part",
    "bootstrap_groups",
    "choose_part",
    "evaluate",
    "evaluate_items",
    "score_items",
]
