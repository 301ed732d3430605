"""Recipes: functions that return a complete configuration, with command, machine and result in the docstring."""

import difflib
from collections.abc import Callable

from ossicle.errors import SettingRefused
from ossicle.training.config import TrainConfig


def scratch() -> TrainConfig:
    """A small network from random weights, for any data: the default of `ossicle train`.

    Command: ossicle train DATA
    """
    return TrainConfig()


def finetune() -> TrainConfig:
    """Fine-tuning of a published PaSST checkpoint, with the settings of the authors' code for ESC-50.

    Command: ossicle train DATA --recipe finetune --init passt_base_s10.audioset_ap476
    Machine and result in the paper: minutes per fold on one GPU, accuracy 0.968 on ESC-50. Not reproduced here.

    Source: PaSST, section 4.2, and the released ESC-50 script: AdamW, 1e-5 after a warm-up of 5 epochs, mixup 0.3,
    clips rolled by up to 50 samples, mean of the weights of each epoch from the second on. Patchout is counted for
    clips of 5 s: shorter ones need a fraction, patchout_t=0.3.
    **Deviations**
    - The norm of the gradient is at most 1; decay spares biases and norms; the warm-up is linear, from step to step.
    - Validation data (15 %) choose the epoch; the script trains on everything but the test data, and keeps the last.
    - Rare labels are drawn more often where labels are unbalanced (`balance`); the script does not balance.
    - The mean is of the weights after an epoch, not before; numbers are bfloat16 or float32, not float16.
    """
    return TrainConfig(
        model="passt_base_s10",
        lr=1e-5,
        weight_decay=1e-4,
        warmup=5.0,
        schedule="constant",
        label_smoothing=0.0,
        average="swa",
        swa_start=0.1,
        epochs=10,
        batch_size=12,
        patchout_t=10,
        patchout_f=3,
        roll=50 / 32_000,
        freq_mask=48,
        time_mask=0.16,
    )


def audioset() -> TrainConfig:
    """PaSST-S on AudioSet, with the settings of the authors' code.

    Command: ossicle train AUDIOSET.csv --recipe audioset --init passt_base_s10.deit_imagenet
    Machine and result in the paper: one RTX 2080 Ti, about 50 hours, mAP 0.471 (0.476 with averaged weights). Not
    reproduced here.

    Source: PaSST, section 3, and its released code: lr 2e-5 after a warm-up of 5 epochs, falling linearly to a
    hundredth from epoch 50 to 100, 100,000 clips an epoch drawn by the weights 1000 / (count + 100), patchout of 40
    columns and 4 rows, mixup of waves and of spectrograms. The paper has a rate of 1e-5,
    200,000 clips an epoch and 120 epochs.
    **Deviations**
    - The norm of the gradient is at most 1; decay spares biases and norms; the warm-up is linear, from step to step.
    - Clips beyond 10 s are cut at random; the code takes their beginning.
    - The mean is of the weights after an epoch, not before; numbers are bfloat16 or float32, not float16.
    """
    return TrainConfig(
        model="passt_base_s10",
        window=10.0,
        lr=2e-5,
        weight_decay=1e-4,
        warmup=5.0,
        schedule="linear",
        hold=50 / 130,
        decay_until=100 / 130,
        epochs=130,
        epoch_clips=100_000,
        batch_size=12,
        balance="class",
        balance_offset=100.0,
        average="swa",
        swa_start=50 / 130,
        swa_every=5,
        patchout_t=40,
        patchout_f=4,
        roll=50 / 32_000,
        wave_mixup=0.5,
        freq_mask=48,
        time_mask=0.192,
        validation=0.0,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {"scratch": scratch, "finetune": finetune, "audioset": audioset}


def recipe(name: str) -> TrainConfig:
    """The recipe of that name.

    Raises:
        SettingRefused: unknown name; the message has similar ones.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=2) or list(RECIPES)
        raise SettingRefused(f"Recipe {name!r} is not available; did you mean {', '.join(near)}?")
    return RECIPES[name]()
