"""Recipes: functions that return a complete configuration, with command, machine and result in the docstring.

`RECIPES` are those of `ossicle train`, `TUNE_RECIPES` those of `ossicle tune`, which depend on the encoder.
"""

import dataclasses
import difflib
from collections.abc import Callable, Collection
from typing import Any

from ossicle.catalog import GENERAL, checkpoint
from ossicle.encoders import Encoder
from ossicle.errors import SettingRefused
from ossicle.training.config import TrainConfig, TuneConfig
from ossicle.tuning.heads import LEAST_LAYERS

STARTED_FROM = "passt_base_s10.audioset_ap476"  # weights of the published results on other data sets


def general() -> TrainConfig:
    """Fine-tuning of the encoder in the package, for any data: the default of `ossicle train`.

    Command: ossicle train DATA
    Machine and result: benchmarks/results/general_tune.md.

    The settings are ours. Blocks near the input learn slower than the head, and a small set is seen more often than a
    large one. On sounds of the encoder's own corpus a rate of 2e-4 does as well.
    """
    weights = checkpoint(GENERAL)
    return TrainConfig(model=weights.architecture, weights=weights.name, lr=5e-4, layer_decay=0.75)


def scratch() -> TrainConfig:
    """A small network from random weights, for any data: `ossicle train DATA --init none`.

    Command: ossicle train DATA --init none
    """
    return TrainConfig()


def default_recipe(model: str | None = None, weights: str | None = None) -> TrainConfig:
    """The settings of a training that names no recipe: `general` where nothing speaks against the encoder in the
    package, or where weights of its architecture are given; else `scratch`.

    Args:
        model: the architecture; None is not named, or not known of the weights
        weights: to start from; None is not named, "null" random ones
    """
    start = general()
    fits = model in (None, start.model) if weights is None else model == start.model and weights != "null"
    return start if fits else scratch()


def finetune() -> TrainConfig:
    """Fine-tuning of a PaSST on any data, by the settings of the authors' code for ESC-50.

    Command: ossicle train DATA --recipe finetune --init passt_base_s10.audioset_ap476
    Machine and result in the paper: of ESC-50, see `esc50`. On other data nothing is published.

    Source: PaSST, section 4.2, and the released ESC-50 script; see `esc50`. Patchout is a fraction, so that clips may
    have any length: 0.2 of the columns and 0.25 of the rows are the script's 10 of 49 and 3 of 12 for clips of 5 s.
    **Deviations**
    - Those of `esc50`, and the norm of the gradient is at most 1.
    - Validation data (15 %) choose the epoch; the script trains on everything but the test data, and keeps the last.
    - Rare labels are drawn more often where labels are unbalanced (`balance`); the script does not balance.
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
        patchout_t=0.2,
        patchout_f=0.25,
        roll=50 / 32_000,
        freq_mask=48,
        time_mask=0.16,
    )


def _of_a_data_set(**changes: Any) -> TrainConfig:
    """What the authors' scripts for data sets have in common: the weights, no limit of the gradient, no balancing, and
    nothing of the training part to choose an epoch with."""
    common: dict[str, Any] = {"weights": STARTED_FROM, "clip_gradient": 0.0, "balance": "none", "validation": 0.0}
    return dataclasses.replace(finetune(), **common | changes)


def esc50() -> TrainConfig:
    """ESC-50 by the authors' script, from their weights of AudioSet.

    Command: ossicle train ESC-50-master --recipe esc50 --folds all
    Published: accuracy 0.968 with patchout as here (PaSST-S), the mean of three repeats over the five official folds;
    0.967, 0.977, 0.959, 0.987 and 0.962 for the released weights of the folds. Less than 5 minutes a fold on a GPU.
    Not reproduced here.

    Source: PaSST, table 3 and section 4.2, and ex_esc50.py: clips of 5 s, AdamW, 1e-5 after a warm-up of 5 epochs, 10
    epochs, batches of 12, mixup of spectrograms 0.3, gain 7 dB, masks of 48 bins and 80 frames, patchout of 10 columns
    and 3 rows (the command in its README has 5), mean of the weights of each epoch from the second on.
    **Deviations**
    - The number of epochs is theirs, and was chosen on the test folds; ours choose nothing there.
    - Every epoch is shuffled; their loader passes no shuffling, so theirs are not.
    - The warm-up is linear, from step to step; theirs exponential, from epoch to epoch.
    - Weight decay spares biases, norms, tokens and positions; theirs acts on every parameter.
    - The mean is of the weights after an epoch, not before; numbers are bfloat16 or float32, not float16.
    - Partners for mixing are of the same batch, the gain is any number of decibels, and masks differ from clip to clip
      and hide at most half of an axis.
    - The script names no weights; its default has since become `passt_base_s10.audioset_kd_ap486`, and the published
      results are of the weights here.
    """
    return _of_a_data_set(window=5.0, patchout_t=10, patchout_f=3)


def fsd50k() -> TrainConfig:
    """FSD50K by the authors' script, from their weights of AudioSet.

    Command: ossicle train FSD50K --recipe fsd50k
    Published: mAP 0.653 (PaSST-S, table 3 of the paper, mean of three runs), 0.655 for the released weights; less than
    2 hours on a GPU. With `--model passt_base_s16 --set patchout_f=1`, from weights of that stride, 0.637 and 0.642.
    Not reproduced here.

    Source: PaSST, table 3 and section 4.2, and ex_fsd50k.py: 50 epochs, the rate falls linearly to a hundredth from
    epoch 10 to 20, windows of 10 s, wave mixup, no masks, patchout of 10 columns and 4 rows, mean of the weights of
    every third epoch from the tenth on; the best epoch on the official validation part is evaluated.
    **Deviations**
    - Those of `esc50` but for the first two: the epoch is chosen on the validation part by both, and both shuffle.
    - Of a recording beyond 10 s they score a random window; ours is the mean over windows that cover it.
    """
    return _of_a_data_set(
        window=10.0,
        epochs=50,
        schedule="linear",
        hold=10 / 50,
        decay_until=20 / 50,
        final_lr=0.01,
        swa_start=9 / 50,
        swa_every=3,
        wave_mixup=0.5,
        freq_mask=0,
        time_mask=0.0,
        patchout_t=10,
        patchout_f=4,
    )


def openmic() -> TrainConfig:
    """OpenMIC-2018 by the authors' script, from their weights of AudioSet, with a loss of the known labels alone.

    Command: ossicle train openmic-2018 --recipe openmic
    Published: mAP 0.843 (PaSST-S, table 3 of the paper, mean of three runs), 0.85 for the released weights; less than
    30 minutes on a GPU without overlap of patches. Not reproduced here.

    Source: PaSST, table 3 and section 4.2, and ex_openmic.py: clips of 10 s, 10 epochs, batches of 6, wave mixup, masks
    of 48 bins and 192 frames, patchout of 40 columns and 4 rows, binary cross-entropy of the labels that are known; mAP
    of a class over the clips of which it is known.
    **Deviations**
    - Those of `esc50`.
    - The loss is the mean over known labels; theirs divides by all of them, so that it depends on how many are known.
    - A label of a mix counts in the proportion in which it is known. Theirs counts it whole where one of two mixed
      waves knows it, rounds its target, and of mixed spectrograms takes what the first clip knows.
    """
    return _of_a_data_set(window=10.0, batch_size=6, wave_mixup=0.5, time_mask=0.192, patchout_t=40, patchout_f=4)


def dcase20() -> TrainConfig:
    """Task 1A of DCASE 2020, TAU Urban Acoustic Scenes 2020 Mobile, from the authors' weights of AudioSet.

    Command: ossicle train TAU-urban-acoustic-scenes-2020-mobile-development --recipe dcase20
    Published: accuracy 0.756 (PaSST-S; 0.763 without patchout: table 3 of the paper, mean of three runs); less than an
    hour on a GPU. Not reproduced here.

    Source: PaSST, table 3. The script was not released, and what it had is unknown. Here it is what their scripts for
    other data have in common, with patchout for 10 s, which the paper's speed-up of 4 suggests (as of OpenMIC).
    **Deviations**
    - Unknown beyond those of `esc50`: epochs, batches, masks and patchout are those of `openmic` and `esc50`. The
      group's later code for such scenes also rolls by 10,000 samples (`roll=0.3125`), mixes the statistics of
      frequencies between devices and convolves with impulse responses; the last two are not here.
    """
    return _of_a_data_set(window=10.0, time_mask=0.192, patchout_t=40, patchout_f=4)


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


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "general": general,
    "scratch": scratch,
    "finetune": finetune,
    "audioset": audioset,
    "esc50": esc50,
    "fsd50k": fsd50k,
    "openmic": openmic,
    "dcase20": dcase20,
}


def recipe(name: str) -> TrainConfig:
    """The recipe of that name for `ossicle train`.

    Raises:
        SettingRefused: unknown name; the message has similar ones.
    """
    refuse_unknown(name, RECIPES)
    return RECIPES[name]()


# ---------------------------------------------------------------- of heads on frozen encoders


def paper(encoder: Encoder, *, head: str = "density") -> TuneConfig:
    """Density heads as the authors' code trains them: on WavLM-Large for speech, Llama 2 13B for text, BEiT-Large for
    images. With `--head` also what the paper compares: gq_density, mha, mha_bn.

    Command: ossicle tune microsoft/wavlm-large IEMOCAP --recipe paper --folds all
    Published: with the gate of 8 heads 0.674 on IEMOCAP (segments of 5 s, five folds), 0.946 on AG News, 0.803 on
    CIFAR-100; GQ-DAAM 0.667, 0.949, 0.801; attention with batch normalization 0.634, 0.946, 0.661. Two A100. Not
    reproduced here.

    Source: "Density Adaptive Attention is All You Need" (arXiv 2401.11143), section 3 and tables 1 and 2, and its
    released code: 35 epochs, AdamW with a decay of 0.01 of every parameter, the rate divided by ten after more than ten
    epochs without a better score; speech 1e-4, batches of 8 and a focal loss (gamma 2.5, alpha 0.25), text 5e-5 and
    images 1e-5 with batches of 32 and cross-entropy; raw features, Xavier's weights; 8 heads over the layers; the 512
    values of GQ-DAAM as an image of 8 x 64, of text 64 x 8.
    **Deviations**
    - Those of `tuning.heads` and `models.density`; decay pulls on the logarithm of a spread, theirs on the spread.
    - The epoch is chosen, and the rate falls, by a validation part of the training folds; theirs by the test fold.
    - The norm of the gradient is at most 0.015, which their limit of 1000 is before its float16 gradients are unscaled.
    - Of an encoder of fewer than 24 layers the gate has as many heads as have three layers each.
    - The paper says Adam with a decay of 0.1, and 1e-4 for images; the values are those of the code. GQ-DAAM has 8
      heads for images too, as in the paper; that script has one.
    - Recordings are not cut to 5 s, and means are over real time alone.
    """
    options: dict[str, Any] = {}
    if head in ("density", "gq_density") and encoder.num_layers >= 8 * LEAST_LAYERS:
        options["num_heads"] = 8
    if head == "gq_density":
        options["rows"] = 64 if encoder.modality == "text" else 8
    changes: dict[str, dict[str, Any]] = {
        "sound": {"lr": 1e-4, "batch_size": 8, "loss": "focal", "focal_gamma": 2.5, "focal_alpha": 0.25},
        "text": {"lr": 5e-5, "batch_size": 32},
        "image": {"lr": 1e-5, "batch_size": 32},
    }
    return TuneConfig(
        head=head,
        options=options,
        epochs=35,
        weight_decay=0.01,
        weight_decay_on="all",
        warmup=0.0,
        schedule="plateau",
        plateau_patience=10,
        plateau_factor=0.1,
        clip_gradient=0.015,
        standardize=False,
        balance="none",
        **changes[encoder.modality],
    )


TUNE_RECIPES: dict[str, Callable[..., TuneConfig]] = {"paper": paper}


def tune_recipe(name: str, encoder: Encoder, *, head: str = "density") -> TuneConfig:
    """The recipe of that name for `ossicle tune`, for an encoder and a head.

    Raises:
        SettingRefused: unknown name; the message has similar ones.
    """
    refuse_unknown(name, TUNE_RECIPES)
    return TUNE_RECIPES[name](encoder, head=head)


def refuse_unknown(name: str, known: Collection[str]) -> None:
    """Raises SettingRefused for a recipe that there is none of."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2) or list(known)
        raise SettingRefused(f"Recipe {name!r} is not available; did you mean {', '.join(near)}?")
