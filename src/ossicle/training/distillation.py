"""Distillation: a network learns the outputs of teachers, beside labels or without any.

The loss is the weighted sum of

- the loss on the labels of the data, if it has some;
- for each teacher with logits: binary cross-entropy with its probabilities (multi-label), KL divergence at a
  temperature (single-label), or the squared distance of standardized logits;
- for each teacher with embeddings: one minus the cosine between them and a learnt linear map of the student's features.

Embeddings and logits are standardized by the mean and deviation of the training part first. What all clips have in
common would otherwise dominate: a cosine near one, and probabilities at their base rates, with nothing learnt.

A teacher whose labels are the student's teaches its head. Any other has a linear map of its own from the student's
features to its logits. These maps are in the checkpoints and not in the bundle. Where a teacher does not answer for a
clip, the clip does not count for it.

Source: of the temperature Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.

What parts teacher and student: patchout, SpecAugment masks and the jitter of the filterbank are the student's own, as
the teacher's answer for the whole input is what a student that sees less of it should give. Mixing of spectrograms
(`mixup`) is off: the teacher, with a front end of its own, would not get the mix; `wave_mixup` mixes what both get.
With stored outputs that is off too, as no output of a mix is stored.
"""

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ossicle.bundle import Card
from ossicle.errors import AudioError, DataRefused, SettingRefused
from ossicle.frontend import LogMel
from ossicle.inference import summarize
from ossicle.metrics import mean_average_precision
from ossicle.models.base import Network, drawing_from
from ossicle.report import Section
from ossicle.report.page import FractionCell, Table
from ossicle.training.config import TrainConfig
from ossicle.training.initial import head_of
from ossicle.training.loader import Batch, WaveBatches, Windows
from ossicle.training.losses import mean_loss
from ossicle.training.module import NetworkTraining
from ossicle.training.ranks import Ranks
from ossicle.training.teacher_outputs import Views
from ossicle.training.teachers import Outputs, Teacher
from ossicle.weights.tensors import load_into

logger = logging.getLogger(__name__)
PROJECTIONS = "projections."  # what the names of their tensors begin with
LogitLoss = Literal["bce", "kl", "mse"]


# ---------------------------------------------------------------- losses, one number a clip


def logit_loss(
    student: Float[Tensor, "clip label"],
    teacher: Float[Tensor, "clip label"],
    *,
    kind: LogitLoss,
    deviation: Float[Tensor, "label"],
    temperature: float = 1.0,
) -> Float[Tensor, "clip"]:
    """The loss on logits.

    Args:
        kind: `bce`, the mean over the labels of binary cross-entropy with the teacher's probabilities; `kl`, the
            divergence from the teacher's distribution to the student's, both at the temperature, times its square, so
            that the gradient does not shrink with it; `mse`, the mean squared distance in deviations of the teacher.
    """
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none").mean(1)
    if kind == "mse":
        return ((student - teacher) / deviation).square().mean(1)
    wanted, found = (teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(1)


def embedding_loss(
    projected: Float[Tensor, "clip dim"],
    teacher: Float[Tensor, "clip dim"],
    *,
    mean: Float[Tensor, "dim"],
    deviation: Float[Tensor, "dim"],
) -> Float[Tensor, "clip"]:
    """One minus the cosine between a projection of the student's features and the standardized embedding."""
    return 1 - F.cosine_similarity(projected, (teacher - mean) / deviation, dim=1)


def clip_weights(
    answers: Bool[np.ndarray, "clip"], *, among: Bool[np.ndarray, "batch"] | None = None, world: int = 1
) -> Float[Tensor, "clip"]:
    """What the loss of each clip counts for, so that the sum is the mean over the clips that are answered for.

    Args:
        answers: whether a teacher answers for these clips; the others count for nothing.
        among: the same for the whole batch, of which these clips are the part of one of `world` processes.
    """
    total = int((answers if among is None else among).sum())
    return torch.from_numpy(answers.astype(np.float32) * np.float32(world / max(total, 1)))


# ---------------------------------------------------------------- what a run has of teachers


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """The teachers of a run, and what the student is given with them."""

    teachers: tuple[Teacher, ...]
    unlabeled: bool  # nothing but teachers says what is right
    features_alone: bool = False  # and they give embeddings alone
    views: Views | None = None  # the student gets these

    def batches(self, *args: Any, **options: Any) -> "TaughtBatches":
        """The batches of a training part, with the stored outputs."""
        return TaughtBatches(*args, lesson=self, **options)

    def check(self, train: Int64[np.ndarray, "clip"]) -> None:
        """Raises DataRefused where a teacher answers for no clip of the training part."""
        for one in self.teachers:
            if not one.answers[train].any():
                raise DataRefused(f"{one.name}: it answers for none of the {len(train)} clips of the training part.")

    def module(self, model: Network, frontend: LogMel, config: TrainConfig, **options: Any) -> "Distillation":
        """What trains; a new head begins at the teacher's base rates."""
        module = Distillation(model, frontend, config, lesson=self, **options)
        if config.weights is None:
            module.begin_at_the_mean()
        return module

    def card(self, card: Card) -> Card:
        """A model card that names the teachers, and says what the model cannot do."""
        limits = (
            "It has learned embeddings alone: its one score says nothing. It is for `ossicle embed` and `ossicle tune`."
        )
        return dataclasses.replace(
            card, data=f"{card.data} {self.sentence()}", limits=limits if self.features_alone else card.limits
        )

    def sentence(self) -> str:
        """Who taught."""
        who = []
        for one in self.teachers:
            about = one.stored.about
            made = [about["model"], f"version {about['model_version']}"] if "model_version" in about else []
            made.append(f"license of its weights: {one.license or 'not stated'}")
            who.append(f"`{one.short_name}` ({', '.join(made)})")
        return f"Distilled from {'; '.join(who)}."


class TaughtBatches(WaveBatches):
    """Batches with the stored outputs of the teachers that are not at hand, and the views that these are of.

    A clip comes in the view of number (epoch + a number of its own) modulo the number of views.
    """

    def __init__(self, *args: Any, lesson: Lesson, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lesson = lesson
        self._first_views = np.random.default_rng([self.seed, 4]).integers(0, 1 << 31, len(self.store.lengths))

    def view_numbers(self, clips: Sequence[int], epoch: int) -> Int64[np.ndarray, "clip"]:
        """The view that each clip comes in."""
        number = 1 if self.lesson.views is None else self.lesson.views.number
        return (self._first_views[np.asarray(clips, np.int64)] + epoch) % number

    def waves(
        self, clips: list[int], rng: np.random.Generator, *, mine: slice, epoch: int
    ) -> tuple[list[Tensor | None], list[int]]:
        """A view of each clip of which one is stored; any other is cut at random."""
        waves, lengths = super().waves(clips, rng, mine=mine, epoch=epoch)
        views = self.lesson.views
        if views is None:
            return waves, lengths
        stored = next(one for one in self.lesson.teachers if one.stored.views is not None)
        numbers = self.view_numbers(clips, epoch)
        for place, (clip, length) in enumerate(zip(clips[mine], lengths[mine], strict=True)):
            row, number = int(stored.rows[clip]), int(numbers[mine][place])
            if row < 0 or waves[place] is None:
                continue
            try:
                wave = views.wave(self.store.read(clip), stored.stored.names[row], view=number)
                waves[place] = F.pad(wave, (0, length - len(wave)))  # a header may say another length
            except AudioError:  # the store has counted it
                waves[place] = None
        return waves, lengths

    def _load(self, order: Int64[np.ndarray, "drawn"], epoch: int, number: int) -> Batch:
        batch = super()._load(order, epoch, number)
        every = order[number * self.batch_size : (number + 1) * self.batch_size]
        mine = self.ranks.piece(len(every))
        own = batch.clips.numpy()
        heard = np.full(len(own), mine.start < mine.stop)
        if batch.lost is not None:
            heard &= ~batch.lost.numpy()
        taught: dict[str, Tensor] = {}
        for place, teacher in enumerate(self.lesson.teachers):
            answers = teacher.answers[own] & heard
            among = teacher.answers[every]
            taught[f"{place}.weights"] = clip_weights(answers, among=among, world=self.ranks.world)
            if teacher.predictor is not None:
                continue
            if teacher.stored.views is None:
                logits, embeddings = teacher.clip_rows(own)
            else:
                logits, embeddings = teacher.view_rows(own, self.view_numbers(own.tolist(), epoch))
            rows = {f"{place}.logits": logits, f"{place}.embeddings": embeddings}
            taught |= {name: tensor for name, tensor in rows.items() if tensor is not None}
        return dataclasses.replace(batch, taught=taught)


class Projection(nn.Module):
    """Linear maps from the student's features to the logits and the embeddings of one teacher, both standardized.

    Args:
        dim: of the student's features.
        clips: the training part, over which outputs are standardized.
        labels: the student's; a teacher of the same ones teaches its head and has no map of its own for logits.
        config: a term of the loss without weight has no map.
    """

    logit_mean: Tensor
    logit_deviation: Tensor
    embedding_mean: Tensor
    embedding_deviation: Tensor

    def __init__(
        self,
        teacher: Teacher,
        *,
        dim: int,
        clips: Int64[np.ndarray, "clip"],
        labels: Sequence[str],
        config: TrainConfig,
    ) -> None:
        super().__init__()
        means, deviations = teacher.statistics(clips)
        for kind, mean, deviation in zip(("logit", "embedding"), means, deviations, strict=True):
            self.register_buffer(f"{kind}_mean", torch.zeros(0) if mean is None else mean)
            self.register_buffer(f"{kind}_deviation", torch.ones(0) if deviation is None else deviation)
        self.order: list[int] | None = None  # of the teacher's labels among the student's
        self.num_labels = teacher.num_labels if config.teacher_weight else 0
        self.dim = teacher.dim if config.embedding_weight else 0
        if teacher.labels is not None and self.num_labels and sorted(teacher.labels) == sorted(labels):
            self.order = [list(labels).index(label) for label in teacher.labels]
        own = bool(self.num_labels) and self.order is None
        self.logits = nn.Linear(dim, self.num_labels) if own else None
        self.embeddings = nn.Linear(dim, self.dim) if self.dim else None

    def forward(self, logits: Float[Tensor, "clip own_label"], features: Float[Tensor, "clip own_dim"]) -> Outputs:
        """The teacher's logits and standardized embeddings as the student has them."""
        mine: Tensor | None = None
        if self.logits is not None:
            mine = self.logits(features) * self.logit_deviation + self.logit_mean
        elif self.order is not None:
            mine = logits[:, self.order]
        return mine, None if self.embeddings is None else self.embeddings(features)


# ---------------------------------------------------------------- the module


class Distillation(NetworkTraining):
    """A network that learns from teachers; the rest is that of `NetworkTraining`.

    Args:
        train: the training part, over which the outputs of teachers are standardized.
        labels: the student's.
        projections: those of another; by default new ones.
    """

    def __init__(
        self,
        model: Network,
        frontend: LogMel,
        config: TrainConfig,
        *,
        lesson: Lesson,
        train: Int64[np.ndarray, "clip"],
        labels: Sequence[str],
        projections: nn.ModuleList | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, frontend, config, **options)
        self.lesson, self.labels, self._train = lesson, tuple(labels), train
        self._features = (torch.compile(model.forward_features) if config.compile else model.forward_features,)
        self.projections = projections or self._new_projections()
        self._heard: list[Outputs | None] = [None] * len(lesson.teachers)
        untaught = all(one.order is None for one in self.projected)
        if not lesson.unlabeled and untaught and not config.label_weight:
            raise SettingRefused("label_weight=0: neither labels nor a teacher with the same labels teach the head.")
        if lesson.unlabeled:
            self.judge, self.score_name = self._judge, self._score_name()
            if untaught:
                model.head.requires_grad_(False)  # nobody says what is right, so its score is always 0.5
                zeros = {name: torch.zeros_like(tensor) for name, tensor in head_of(model).items()}
                model.load_state_dict(zeros, strict=False)

    def _new_projections(self) -> nn.ModuleList:
        dim = feature_dim(self.model, frames=self.frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return nn.ModuleList(
                Projection(one, dim=dim, clips=self._train, labels=self.labels, config=self.config)
                for one in self.lesson.teachers
            )

    def begin_at_the_mean(self) -> None:
        """Sets the biases of a new head to the mean logits of the teacher with its labels: it starts at base rates."""
        for projection in self.projected:
            if projection.order is None:
                continue
            mean = torch.empty_like(projection.logit_mean)
            mean[projection.order] = projection.logit_mean
            biases = {name: mean for name in head_of(self.model) if name.endswith(".bias")}
            self.model.load_state_dict(biases, strict=False)
            return

    @property
    def projected(self) -> list[Projection]:
        """The projections, by teacher."""
        return cast(list[Projection], list(self.projections))

    # --- what trains and what is kept

    def trained(self) -> Any:
        """The parameters of the network and of the projections."""
        yield from super().trained()
        yield from self.projections.named_parameters(prefix=PROJECTIONS.removesuffix("."))

    def rate_scale(self, name: str) -> float:
        """As in the network; a projection has the rate of the settings."""
        return 1.0 if name.startswith(PROJECTIONS) else super().rate_scale(name)

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the network and of the projections."""
        return {**super().weights(), **{PROJECTIONS + name: t for name, t in self.projections.state_dict().items()}}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Into both."""
        own = {name.removeprefix(PROJECTIONS): t for name, t in tensors.items() if name.startswith(PROJECTIONS)}
        super().load_weights({name: t for name, t in tensors.items() if not name.startswith(PROJECTIONS)})
        load_into(self.projections, own, source="the best epoch")

    def copied(self) -> "Distillation":
        """A copy with the same teachers, whose passes a step includes."""
        config = dataclasses.replace(self.config, compile=False, lr=0.0)
        model, frontend, projections = copy.deepcopy((self.model, self.frontend, self.projections))
        return Distillation(
            model.train(),
            frontend,
            config,
            projections=projections,
            lesson=self.lesson,
            train=self._train,
            labels=self.labels,
            task=self.task,
            frames=self.frames,
            batches=self.batches,
        )

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the head and of the projections."""
        yield from super().head_parameters()
        yield from self.projections.parameters()

    # --- a step

    def hear(self, waves: Float[Tensor, "clip time"], lengths: Int64[Tensor, "clip"]) -> None:
        """Asks the teachers at hand."""
        self._heard = [
            None if one.predictor is None else one.listen(waves, lengths, rate=self.frontend.rate)
            for one in self.lesson.teachers
        ]

    def batch_loss(self, batch: Batch) -> Tensor:
        """The weighted sum over labels and teachers."""
        generator = batch.generator()
        spec, targets, known = self.augmented(batch, generator)
        logits, features = self.outputs(spec, generator)
        loss = logits.new_zeros(())
        if not self.lesson.unlabeled:
            own = mean_loss(logits, targets, task=self.task, settings=self.config, known=known)
            loss = loss + self.config.label_weight * own * batch.part
        for place, projection in enumerate(self.projected):
            taught = self._heard[place] or (
                batch.taught.get(f"{place}.logits"),
                batch.taught.get(f"{place}.embeddings"),
            )
            each = self.teacher_losses(place, projection(logits, features), taught)
            loss = loss + sum((one * batch.taught[f"{place}.weights"]).sum() for one in each)
        self._heard = [None] * len(self._heard)
        return loss

    def outputs(
        self, spec: Float[Tensor, "clip mel frame"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip dim"]]:
        """Logits and features of the student."""
        if self.config.compile:  # which traces no generator but torch's own
            with drawing_from(generator):
                out = self._features[0](spec)
        else:
            out = self._features[0](spec, generator=generator)
        return out.logits, out.features

    def teacher_losses(self, place: int, mine: Outputs, taught: Outputs) -> list[Float[Tensor, "clip"]]:
        """The weighted losses on the logits and on the embeddings of a teacher, one number a clip."""
        projection, config = self.projected[place], self.config
        (logits, embeddings), (wanted_logits, wanted_embeddings) = map(in_float32, mine), map(in_float32, taught)
        found = []
        if logits is not None and wanted_logits is not None:
            each = logit_loss(
                logits,
                wanted_logits.to(logits.dtype),
                kind=self.logit_loss_of(place),
                deviation=projection.logit_deviation.to(logits),
                temperature=config.teacher_temperature,
            )
            found.append(config.teacher_weight * each)
        if embeddings is not None and wanted_embeddings is not None:
            each = embedding_loss(
                embeddings,
                wanted_embeddings.to(embeddings.dtype),
                mean=projection.embedding_mean.to(embeddings),
                deviation=projection.embedding_deviation.to(embeddings),
            )
            found.append(config.embedding_weight * each)
        return found

    def logit_loss_of(self, place: int) -> LogitLoss:
        """The loss on the logits of a teacher."""
        if self.config.teacher_loss != "auto":
            return self.config.teacher_loss
        return "kl" if self.lesson.teachers[place].task == "single-label" else "bce"

    # --- agreement

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the logits; without labels all that a teacher is compared with."""
        if not self.lesson.unlabeled:
            super().validation_step(batch, batch_idx)
        else:
            self.val_outputs.append((batch.clips, self.compared(batch)))

    def compared(self, batch: Batch) -> Float[Tensor, "clip number"]:
        """What each teacher's outputs are compared with, side by side, nothing drawn at random."""
        out = self.model.forward_features(self.frontend(batch.waves, lengths=batch.lengths, frames=self.frames))
        mine = [rows for projection in self.projected for rows in projection(out.logits, out.features)]
        return torch.cat([rows.float() for rows in mine if rows is not None], 1)

    def joined(self, outputs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Int64[np.ndarray, "clip"], list[Outputs]]:
        """The clips, ascending, and what of each is compared with each teacher, joined over its windows."""
        owners = torch.cat([clips for clips, _ in outputs])
        rows = torch.cat([some.cpu() for _, some in outputs])
        order = owners.argsort(stable=True)
        clips, counts = owners[order].unique_consecutive(return_counts=True)
        by_clip, found, at = rows[order].split(counts.tolist()), [], 0
        for teacher, projection in zip(self.lesson.teachers, self.projected, strict=True):
            logits = embeddings = None
            if number := projection.num_labels:
                some = [summarize(one[:, at : at + number].numpy(), task=teacher.task) for one in by_clip]
                logits, at = torch.from_numpy(np.stack(some)), at + number
            if number := projection.dim:
                embeddings = torch.stack([one[:, at : at + number].mean(0) for one in by_clip])
                at += number
            found.append((logits, embeddings))
        return clips.numpy(), found

    def agreements(self, outputs: Sequence[tuple[Tensor, Tensor]]) -> list["Agreement"]:
        """How far the student agrees with each teacher on the clips that it answers for."""
        clips, found = self.joined(outputs)
        return [self._agreement(place, clips, mine) for place, mine in enumerate(found)]

    def _agreement(self, place: int, clips: Int64[np.ndarray, "clip"], mine: Outputs) -> "Agreement":
        teacher, projection = self.lesson.teachers[place], self.projected[place]
        there = teacher.answers[clips]
        logits, embeddings = (None if rows is None else rows[there] for rows in mine)
        wanted = teacher.clip_rows(clips[there])
        cosine = top1 = precision = None
        if there.any() and logits is not None and wanted[0] is not None:
            top1 = float((logits.argmax(1) == wanted[0].argmax(1)).double().mean())
            if teacher.task == "multi-label":
                value = mean_average_precision(logits.sigmoid().numpy(), (wanted[0] > 0).numpy())[0]
                precision = None if np.isnan(value) else float(value)
        if there.any() and embeddings is not None and wanted[1] is not None:
            mean, deviation = projection.embedding_mean.cpu(), projection.embedding_deviation.cpu()
            cosine = float(1 - embedding_loss(embeddings, wanted[1], mean=mean, deviation=deviation).mean())
        return Agreement(
            teacher=teacher.name,
            clips=int(there.sum()),
            top1=top1,
            mean_average_precision=precision,
            cosine=cosine,
        )

    def _judge(self, outputs: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Loss and score of the validation part, by the teachers."""
        clips, found = self.joined(outputs)
        loss = 0.0
        for place, mine in enumerate(found):
            teacher = self.lesson.teachers[place]
            weights, taught = clip_weights(teacher.answers[clips]), teacher.clip_rows(clips)
            loss += sum(float((one * weights).sum()) for one in self.teacher_losses(place, mine, taught))
        scores = [self._agreement(place, clips, mine).score(self.score_name) for place, mine in enumerate(found)]
        return loss, next((score for score in scores if score is not None), 0.0)

    def _score_name(self) -> str:
        pairs = zip(self.lesson.teachers, self.projected, strict=True)
        task = next((teacher.task for teacher, projection in pairs if projection.num_labels), None)
        return {None: COSINE, "multi-label": MAP, "single-label": TOP1}[task]

    @torch.inference_mode()
    def agreement_on(self, windows: Windows, *, ranks: Ranks) -> list["Agreement"]:
        """The agreement on a part of the data, of which each process has scored its clips."""
        mode = self.training
        self.eval()
        outputs = [(batch.clips, self.compared(batch.to(self.device)).cpu()) for batch in windows]
        self.train(mode)
        return self.agreements([one for part in ranks.gather(outputs) for one in part])


TOP1, MAP, COSINE = "agreement", "mAP against the teacher", "cosine to the teacher"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a student agrees with a teacher; None for what the teacher does not give."""

    teacher: str
    clips: int  # that it answers for
    top1: float | None  # fraction of clips with the same best label
    mean_average_precision: float | None  # against the teacher's labels above 0.5; None where no clip has one
    cosine: float | None  # mean over clips, of standardized embeddings

    def score(self, name: str | None) -> float | None:
        """By the name of `TOP1`, `MAP` or `COSINE`."""
        return {TOP1: self.top1, MAP: self.mean_average_precision, COSINE: self.cosine}[name or TOP1]

    def to_json(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return dataclasses.asdict(self)

    def sentence(self) -> str:
        """In words, with what there is."""
        shown = {"best label the same": self.top1, MAP: self.mean_average_precision, COSINE: self.cosine}
        values = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
        return f"Agreement with {self.teacher} on {self.clips} test clips: {values or 'not defined'}"


def agreement_section(agreements: Sequence[Agreement]) -> Section:
    """The agreement with each teacher, for the report."""

    def cell(value: float | None) -> str | FractionCell:
        return "–" if value is None else FractionCell(value=min(max(value, 0.0), 1.0))

    table = Table(
        header=["teacher", "clips", "same best label", "mAP", "cosine"],
        rows=[
            [one.teacher, str(one.clips), cell(one.top1), cell(one.mean_average_precision), cell(one.cosine)]
            for one in agreements
        ],
        caption="mAP: of the student's scores against the teacher's labels, whose probability is above 0.5. Cosine: "
        "between projected features and the teacher's embeddings, standardized over the training part. A dash: not "
        "given, or not defined.",
    )
    return Section(title="Agreement with the teachers", blocks=["On the test part.", table])


def in_float32(rows: Tensor | None) -> Tensor | None:
    """At least in that precision."""
    return None if rows is None else rows.to(torch.promote_types(rows.dtype, torch.float32))


def feature_dim(model: Network, *, frames: int) -> int:
    """How many numbers the features before the head have."""
    mode = model.training
    with torch.no_grad():
        parameter = next(model.parameters())
        spec = torch.zeros(1, model.config.mels, max(frames, model.min_frames)).to(parameter)
        dim = model.eval().forward_features(spec).features.shape[1]
    model.train(mode)
    return int(dim)


def refuse_unteachable(config: TrainConfig) -> None:
    """Raises SettingRefused for settings that no distillation has."""
    if config.strategy == "fsdp":
        raise SettingRefused("strategy=fsdp does not go with teachers; use strategy=ddp.")
    if not config.teachers and config.unlabeled:
        raise SettingRefused("without labels a teacher must say what is right; name one with --teacher.")
    if twice := [name for name in config.teachers if list(config.teachers).count(name) > 1]:
        raise SettingRefused(f"teacher {twice[0]} is named twice; once is enough.")
    if not (config.teacher_weight or config.embedding_weight):
        raise SettingRefused("teacher_weight=0 and embedding_weight=0: the teachers would teach nothing.")
