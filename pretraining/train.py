"""Trains the student: teacher and student hear the same mixtures of the corpus.

    python -m pretraining.train STORE --teacher WEIGHTS -o RUN --steps 60000 [--fall 12000] [--init BUNDLE]

A step is twice 32 mixtures of 5 s. Its draws are a function of the seed and the step's number, so a run that was killed
goes on from `RUN/state.pt`, written every few minutes, as if nothing had happened, also on another machine. With two
threads each hears a half: two passes of one thread take less time than one pass of two. Matrices of the
blocks learn with Muon (Jordan et al., 2024; as AdamW in the size of its steps), all else with AdamW. The rate is
constant after a warm-up and falls to zero over the last `--fall` steps, so that one may go on from any milestone. What
ships is the running average of the weights. `--init` starts from what was shipped, where no state is left to go on
from: the layers to the teachers' other answers, which do not ship, are fitted to it first.

To see what something is worth, `--without LOSS` leaves a loss out, `--corpus 0.5` half of the clips, and `--alone` the
mixing.

`RUN/log.jsonl` has the losses, and every `VALIDATE` steps and at the end those on mixtures of the validation part, with
the accuracy of a probe on its topics: what a choice may go by.
"""

import argparse
import copy
import json
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ossicle
from ossicle.devices import choose_dtype
from ossicle.files import write_atomically
from ossicle.models.passt import Passt
from ossicle.types import Float32
from pretraining.features import MELS, Store, log_mel_of
from pretraining.mixtures import FRAMES, Mixer
from pretraining.student import Batch, Student, fit, losses
from pretraining.teacher import Heard, Teacher

BATCH, HALVES = 32, 2
RATE, MATRIX_RATE, DECAY, CLIP = 1e-3, 2e-3, 0.05, 2.0
WEIGHTS = {"speech": 2.0}  # of losses; of all others 1
FIT = 20  # batches that the layers behind shipped weights are fitted to
WARMUP, AVERAGE = 200, 0.999
LOG, VALIDATE, SAVE_SECONDS = 50, 500, 240.0


def main() -> None:
    """Trains until the steps are done, or until SIGTERM or Ctrl-C, which keep what is learnt."""
    parser = argparse.ArgumentParser(description="Trains the student of the shipped encoder.")
    parser.add_argument("store", type=Path, help="what `pretraining.features` wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="folder with model.safetensors and layers.json")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--fall", type=int, default=0, help="the last steps, over which the rate falls to zero")
    parser.add_argument("--init", help="a bundle of a student that was shipped, or its name")
    parser.add_argument("--batch", type=int, default=BATCH, help="mixtures of each half of a step")
    parser.add_argument("--threads", type=int, default=1)
    losses = ("labels", *Heard._fields, "speech")
    parser.add_argument("--without", nargs="+", default=(), choices=losses, help="what the student does not learn")
    parser.add_argument("--corpus", type=float, default=1.0, help="fraction of the clips that it hears")
    parser.add_argument("--alone", action="store_true", help="clips are not mixed")
    parser.add_argument("--seed", type=int, default=0, help="of the weights at the start and of the mixtures")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.output.mkdir(parents=True, exist_ok=True)
    training = Training(
        Store.open(given.store),
        Teacher(given.teacher).eval(),
        given.store,
        threads=given.threads,
        batch=given.batch,
        without=given.without,
        corpus=given.corpus,
        alone=given.alone,
        seed=given.seed,
    )
    state = given.output / "state.pt"
    if state.exists():
        training.load_state_dict(torch.load(state, weights_only=True))
        print(f"goes on at step {training.step}", flush=True)
    elif given.init:
        shipped = ossicle.load(given.init).model
        assert isinstance(shipped, Passt)
        training.start_from(shipped)
    stopped: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stopped.append(number))
    saved, seen = time.monotonic(), []
    began = time.process_time()
    with open(given.output / "log.jsonl", "a", encoding="utf-8") as log:
        while training.step < given.steps and not stopped:
            seen.append(training.advance(fallen(training.step, steps=given.steps, fall=given.fall)))
            last = training.step == given.steps
            if training.step % LOG == 0 or last:
                training.seconds += time.process_time() - began
                began = time.process_time()
                row: dict[str, Any] = {"step": training.step, "core_hours": round(training.seconds / 3600, 3)}
                row |= means(seen)
                if training.step % VALIDATE == 0 or last:
                    row["validation"] = training.validate()
                print(json.dumps(row), file=log, flush=True)
                seen = []
            if time.monotonic() - saved > SAVE_SECONDS:
                save(training, state)
                saved = time.monotonic()
    training.seconds += time.process_time() - began
    save(training, state)
    print(f"stopped after step {training.step}", flush=True)


def fallen(step: int, *, steps: int, fall: int) -> float:
    """What the rate of a step is multiplied by."""
    return min(1.0, (step + 1) / WARMUP) * min(1.0, (steps - step) / fall if fall else 1.0)


def save(training: "Training", path: Path) -> None:
    write_atomically(path, lambda temporary: torch.save(training.state_dict(), temporary))


class Training:
    """Everything that a step needs and changes.

    Args:
        folder: of what is computed once
        threads: that hear the halves of a step
        batch: mixtures of a half
        without, corpus, alone: what is left out
        seed: of the weights at the start and of the mixtures
    """

    def __init__(
        self,
        store: Store,
        teacher: Teacher,
        folder: Path,
        *,
        threads: int = 1,
        batch: int = BATCH,
        without: Sequence[str] = (),
        corpus: float = 1.0,
        alone: bool = False,
        seed: int = 0,
    ) -> None:
        self.store, self.teacher, self.batch, self.without = store, teacher, batch, without
        self.threads = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.groups = groups(folder, store, teacher)
        train = np.flatnonzero(store.part == "train")
        self.validation = np.flatnonzero(store.part != "train")
        # Of all mixtures, also where less is heard: runs that are compared have the same scales.
        self.scale = scales(folder, Mixer(store, train, self.groups, seed=1, change=True, row=0), teacher)
        heard = train[np.random.default_rng(5).random(len(train)) < corpus]
        how = {"single": 1.0, "row": 0.0} if alone else {}
        self.mixer = Mixer(store, heard, self.groups, seed=seed + 1, change=True, **how)
        torch.manual_seed(seed)
        self.student = Student(self.scale["logits"])
        self.halves = [sharing(self.student) for _ in range(HALVES)]
        self.average = copy.deepcopy(self.student).eval()
        self.optimizers = optimizers(self.student)
        self.rates = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        self.low = choose_dtype("auto", torch.device("cpu"))
        self.step, self.seconds = 0, 0.0

    def advance(self, fallen: float) -> dict[str, float]:
        """One step; gives its losses."""
        found = [*self.threads.map(self.half, range(HALVES))]
        gather(self.student, self.halves)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * fallen
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        follow(self.average, self.student, weight=min(AVERAGE, self.step / (self.step + 19)))
        return means(found)

    def half(self, number: int) -> dict[str, float]:
        """The gradients of a half of the step's mixtures, in a student of its own; gives its losses."""
        student = self.halves[number].train()
        generator = torch.Generator().manual_seed(HALVES * self.step + number)
        mixtures = [(self.step, number * self.batch + one) for one in range(self.batch)]
        found = self.losses(student, self.mixer, mixtures, generator)
        student.zero_grad()
        kept = [WEIGHTS.get(name, 1.0) * loss for name, loss in found.items() if name not in self.without]
        torch.stack(kept).sum().backward()
        return {name: value.item() for name, value in found.items()}

    def losses(
        self,
        student: Student,
        mixer: Mixer,
        numbers: Sequence[tuple[int, ...]],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Those of a batch of mixtures."""
        mel, heard, speech, spoken = self.taught(mixer, numbers)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low == torch.bfloat16):
            answer = student(mel, generator=generator)
        return losses(answer, heard, self.scale, speech, spoken)

    def taught(self, mixer: Mixer, numbers: Sequence[tuple[int, ...]]) -> Batch:
        """Mixtures, and what the teachers answer."""
        mixtures = [mixer.clip(*number) for number in numbers]
        mel, speech, spoken = (
            torch.from_numpy(np.stack([getattr(one, name) for one in mixtures])) for name in ("mel", "speech", "spoken")
        )
        with torch.no_grad():
            return mel, self.teacher(mel[:, None]), speech, spoken

    @torch.no_grad()
    def start_from(self, shipped: Passt) -> None:
        """Begins with weights that were shipped; the layers to the teachers' other answers are fitted to them."""
        student = self.student.eval()
        batches = [self.taught(self.mixer, [(2**41, number, one) for one in range(BATCH)]) for number in range(FIT)]
        student.start_from(shipped, torch.cat([batch[0] for batch in batches[:2]]))
        fit(student, batches, self.scale)
        for other in (*self.halves, self.average):
            other.load_state_dict(student.state_dict())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on the validation part, and the probe on its topics."""
        mixer = Mixer(self.store, self.validation, self.groups, seed=2, change=False, row=0)
        rows = [
            {k: v.item() for k, v in self.losses(self.average, mixer, [(n, i) for i in range(BATCH)]).items()}
            for n in range(6)
        ]
        return means(rows) | {"topics": round(self.topics(), 4)}

    def topics(self) -> float:
        """Balanced accuracy of a ridge regression from the features of single clips to their topics.

        A thousand clips of the training part of equally many topics fit it; the validation part is scored.
        """
        draw = np.random.default_rng(3)
        known = np.flatnonzero((self.store.topic != "") & (self.store.part == "train"))
        names, of = np.unique(self.store.topic[known], return_inverse=True)
        train = np.concatenate([draw.permutation(known[of == n])[:60] for n in range(len(names))])
        test = self.validation[np.isin(self.store.topic[self.validation], names)]
        test = np.concatenate([draw.permutation(test[self.store.topic[test] == n])[:40] for n in names])
        x, x_test = self.features(train), self.features(test)
        mean, deviation = x.mean(0), x.std(0) + 1e-6
        x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
        y = (self.store.topic[train][:, None] == names).astype(np.float64)
        weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
        guess = names[(x_test @ weights + y.mean(0)).argmax(1)]
        right = guess == self.store.topic[test]
        return float(np.mean([right[self.store.topic[test] == n].mean() for n in np.unique(self.store.topic[test])]))

    def features(self, clips: np.ndarray) -> np.ndarray:
        """Mean over time of the patches behind the last block, and the class tokens, for the first 5 s of clips."""
        found = []
        for at in range(0, len(clips), BATCH):
            mel = torch.from_numpy(np.stack([alone(self.store, int(clip)) for clip in clips[at : at + BATCH]]))
            states = self.average.network
            with torch.autocast("cpu", torch.bfloat16, enabled=self.low == torch.bfloat16):
                blocks = states.forward_features(mel, hidden_states=True).hidden_states
            assert blocks is not None
            tokens = blocks[-1].float()
            found.append(torch.cat([tokens[:, :2].mean(1), tokens[:, 2:].mean(1)], dim=1))
        return torch.cat(found).double().numpy()

    def state_dict(self) -> dict[str, Any]:
        return {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for student in (self.student, *self.halves):
            student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.step, self.seconds = state["step"], state["seconds"]


def optimizers(student: Student) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else; tables and vectors do not decay."""
    matrices, decaying, others = [], [], []
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim == 2 and ".blocks." in name:
            matrices.append(parameter)
        elif parameter.ndim > 1 and "pos_embed" not in name and "token" not in name:
            decaying.append(parameter)
        else:
            others.append(parameter)
    groups = [{"params": decaying, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return [
        torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98)),
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
    ]


def sharing(student: Student) -> Student:
    """A student of the same weights in the same memory, with gradients and statistics of its own."""
    copied = copy.deepcopy(student)
    for own, shared in zip(copied.parameters(), student.parameters(), strict=True):
        own.data = shared.data
    return copied


@torch.no_grad()
def gather(student: Student, halves: list[Student]) -> None:
    """Gives a student the mean of the gradients, and of the statistics, of those that share its weights."""
    for own, *given in zip(student.parameters(), *(half.parameters() for half in halves), strict=True):
        grads = [one.grad for one in given if one.grad is not None]
        own.grad = torch.stack(grads).sum(0) / len(halves) if grads else None
    for kept, *found in zip(student.buffers(), *(half.buffers() for half in halves), strict=True):
        mean = torch.stack([*found]).double().mean(0).to(kept.dtype)
        for one in (kept, *found):
            one.copy_(mean)


@torch.no_grad()
def follow(average: nn.Module, student: nn.Module, *, weight: float) -> None:
    """Moves the averaged weights towards the student's."""
    for kept, new in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - weight)
        else:
            kept.copy_(new)


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: round(float(np.mean([row[name] for row in rows if name in row])), 4) for name in names}


def alone(store: Store, clip: int) -> Float32[np.ndarray, "mel frame"]:
    """The first 5 s of a clip, followed by silence."""
    stored = store.frames[store.starts[clip] : store.starts[clip] + min(store.length(clip), FRAMES)]
    silence = log_mel_of(np.zeros((FRAMES - len(stored), MELS), np.float32))
    return np.concatenate([stored.astype(np.float32).T, silence], axis=1)


def groups(folder: Path, store: Store, teacher: Teacher) -> np.ndarray:
    """The label that the teacher gives each clip first; computed once."""
    path = folder / "groups.npy"
    if not path.exists():
        found = []
        for clip in range(len(store)):
            with torch.no_grad():
                found.append(int(teacher(torch.from_numpy(alone(store, clip))[None, None]).logits.argmax()))

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                np.save(file, np.array(found))

        write_atomically(path, write)
    return np.load(path)


def scales(folder: Path, mixer: Mixer, teacher: Teacher, batches: int = 40) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of each of the teachers' outputs over mixtures; computed once."""
    path = folder / "scales.pt"
    if not path.exists():
        seen: dict[str, list[Tensor]] = {}
        for number in range(batches):
            mixtures = [mixer.clip(2**40, number, one) for one in range(BATCH)]
            with torch.no_grad():
                heard = teacher(torch.from_numpy(np.stack([one.mel for one in mixtures]))[:, None])
            for name in Heard._fields:
                values = getattr(heard, name)
                seen.setdefault(name, []).append(values.flatten(2).mT.flatten(0, 1) if values.ndim == 4 else values)
            speech = np.concatenate([one.speech[one.spoken] for one in mixtures])
            seen.setdefault("speech", []).append(torch.from_numpy(speech))
        joined = {name: torch.cat(values) for name, values in seen.items()}
        found = {name: (values.mean(0), values.std(0) + 1e-4) for name, values in joined.items()}
        write_atomically(path, lambda temporary: torch.save(found, temporary))
    return torch.load(path, weights_only=True)


if __name__ == "__main__":
    main()
