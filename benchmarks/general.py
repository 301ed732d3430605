"""What the encoder in the package is worth: frozen features under a linear probe, beside its teachers and statistics.

    python benchmarks/general.py probe   [--model general]     five sets, on official or speaker-disjoint folds
    python benchmarks/general.py tags    [--model general]     its labels on ESC-50, beside its teacher's and the truth
    python benchmarks/general.py tune    [--model general]     `ossicle train` on ESC-50 from it and from random weights
    python benchmarks/general.py paid    --store STORE         short trainings that leave something out, from the start

From the top of a checkout, with PYTHONPATH=. for pretraining/.

Fixed before the first figure: the features are mean and deviation over time of every block; the probe is scikit-learn's
logistic regression with its own settings on standardized features; folds are the official ones of ESC-50, five by
speaker (`GroupKFold`) of FSDD, EmoDB and RAVDESS, the makers' of the drums; of 8 clips a class, drawn from the folds
that train with the fold's number as seed, features and probe are the same. Nothing is chosen by any figure here.

The upper references are EfficientAT `mn04` (its embedding) and the encoder of Whisper tiny.en (mean and deviation of
every block), both measured by the same probe on the same folds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import about_this_run, runs_to_add_to, write_result
from pretraining.ship import save, trained
from pretraining.teacher import Teacher, features
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ossicle
from ossicle.catalog import find_checkpoint
from ossicle.catalog.rows import read_labels
from ossicle.data import Dataset, read_dataset
from ossicle.data.cache import decode
from ossicle.encoders import load_encoder
from ossicle.encoders.cache import open_features
from ossicle.frontend import frontend_config, log_mel

RATE, CLIP = 32_000, 5 * 32_000
SHOTS = 8
# By set: the least that is asked for, and what is aimed at.
WANTED = {
    "ESC-50": (0.75, 0.90),
    "ESC-50, 8 clips a class": (0.60, 0.80),
    "FSDD": (0.90, 0.97),
    "EmoDB": (0.80, 0.90),
    "RAVDESS": (0.50, 0.70),
    "drums": (None, 0.55),
}
# Labels of AudioSet for the classes of ESC-50, each for one class: a clip counts as right if one of its class's is the
# highest of all these. Cans and washing machines have none of their own among the 527.
ESC50 = {
    "airplane": ("Fixed-wing aircraft, airplane", "Aircraft", "Aircraft engine", "Jet engine"),
    "breathing": ("Breathing", "Wheeze", "Gasp", "Pant", "Sniff"),
    "brushing_teeth": ("Toothbrush", "Electric toothbrush"),
    "can_opening": ("Crushing", "Cutlery, silverware"),
    "car_horn": ("Vehicle horn, car horn, honking", "Toot", "Air horn, truck horn"),
    "cat": ("Cat", "Meow", "Purr", "Caterwaul", "Hiss"),
    "chainsaw": ("Chainsaw",),
    "chirping_birds": ("Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Squawk"),
    "church_bells": ("Church bell", "Bell", "Change ringing (campanology)", "Tubular bells"),
    "clapping": ("Clapping", "Applause", "Hands"),
    "clock_alarm": ("Alarm clock", "Alarm", "Beep, bleep", "Buzzer", "Telephone bell ringing"),
    "clock_tick": ("Tick", "Tick-tock", "Clock"),
    "coughing": ("Cough", "Throat clearing"),
    "cow": ("Cattle, bovinae", "Moo", "Cowbell"),
    "crackling_fire": ("Fire", "Crackle"),
    "crickets": ("Cricket",),
    "crow": ("Crow", "Caw"),
    "crying_baby": ("Baby cry, infant cry", "Crying, sobbing", "Whimper"),
    "dog": ("Dog", "Bark", "Bow-wow", "Yip", "Growling", "Howl", "Whimper (dog)"),
    "door_wood_creaks": ("Squeak", "Creak"),
    "door_wood_knock": ("Knock", "Tap"),
    "drinking_sipping": ("Gargling", "Slosh", "Burping, eructation"),
    "engine": (
        "Engine",
        "Idling",
        "Medium engine (mid frequency)",
        "Light engine (high frequency)",
        "Accelerating, revving, vroom",
        "Engine starting",
    ),
    "fireworks": ("Fireworks", "Explosion", "Firecracker", "Burst, pop", "Boom"),
    "footsteps": ("Walk, footsteps", "Run"),
    "frog": ("Frog", "Croak"),
    "glass_breaking": ("Shatter", "Breaking", "Glass", "Smash, crash"),
    "hand_saw": ("Sawing", "Scrape", "Filing (rasp)", "Sanding", "Rub"),
    "helicopter": ("Helicopter",),
    "hen": ("Cluck", "Chicken, rooster", "Fowl"),
    "insects": ("Insect", "Fly, housefly", "Bee, wasp, etc.", "Mosquito", "Buzz"),
    "keyboard_typing": ("Computer keyboard", "Typing", "Typewriter"),
    "laughing": ("Laughter", "Giggle", "Chuckle, chortle", "Belly laugh", "Snicker", "Baby laughter"),
    "mouse_click": ("Clicking", "Mouse"),
    "pig": ("Pig", "Oink"),
    "pouring_water": ("Pour", "Liquid", "Trickle, dribble", "Fill (with liquid)"),
    "rain": ("Rain", "Rain on surface", "Raindrop"),
    "rooster": ("Crowing, cock-a-doodle-doo",),
    "sea_waves": ("Waves, surf", "Ocean"),
    "sheep": ("Sheep", "Bleat", "Goat"),
    "siren": (
        "Siren",
        "Civil defense siren",
        "Ambulance (siren)",
        "Police car (siren)",
        "Fire engine, fire truck (siren)",
    ),
    "sneezing": ("Sneeze",),
    "snoring": ("Snoring",),
    "thunderstorm": ("Thunderstorm", "Thunder"),
    "toilet_flush": ("Toilet flush",),
    "train": (
        "Train",
        "Rail transport",
        "Railroad car, train wagon",
        "Train horn",
        "Train whistle",
        "Train wheels squealing",
    ),
    "vacuum_cleaner": ("Vacuum cleaner",),
    "washing_machine": ("Mechanisms",),
    "water_drops": ("Drip", "Water tap, faucet"),
    "wind": ("Wind", "Wind noise (microphone)", "Rustling leaves"),
}


def main() -> None:
    """Runs what was asked for and writes what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("probe", "tags", "tune", "paid"))
    parser.add_argument("--model", default="general", help="a bundle, or a name with weights")
    parser.add_argument("--as", dest="name", help="what the table calls it")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"), help="the teachers'")
    parser.add_argument("--references", action="store_true", help="also the teachers, and statistics of the log-mel")
    parser.add_argument("--curve", action="store_true", help="for the table of the learning curve")
    parser.add_argument("--only", nargs="+", help="names of sets")
    parser.add_argument("--fold", default="1", help="of ESC-50, to train on the others")
    parser.add_argument("--init", nargs="+", default=["general", "none"], help="what `tune` starts from")
    parser.add_argument("--store", type=Path, help="what `pretraining.features` wrote, for `paid`")
    parser.add_argument("--work", type=Path, default=Path("runs/paid"), help="where the trainings of `paid` lie")
    parser.add_argument("--steps", type=int, default=400, help="of each training of `paid`")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    {"probe": probe, "tags": tags, "tune": tune, "paid": paid}[arguments.study](arguments)


# --- frozen features --------------------------------------------------------------------------------------------------


def probe(arguments: argparse.Namespace) -> None:
    """The probe on every set, of the model and of what stands beside it."""
    encoders: dict[str, Callable[[Dataset], np.ndarray]] = {}
    model = load_encoder(arguments.model)
    encoders[arguments.name or arguments.model] = lambda dataset: statistics(model, dataset)
    if arguments.references:
        whisper = load_encoder(str(arguments.weights / "whisper_tiny_en_encoder"), crop=True)
        teacher = Teacher(arguments.weights / "mn04_audioset").eval()
        encoders |= {
            "log-mel statistics": log_mel_statistics,
            "mn04": lambda dataset: embeddings(teacher, dataset),
            "Whisper tiny": lambda dataset: statistics(whisper, dataset),
        }
    for title, dataset in read_sets(arguments).items():
        for name, compute in encoders.items():
            began = time.process_time()
            table = compute(dataset)
            for row, accuracy in scores(title, dataset, table).items():
                run = {"encoder": name, "set": row, "accuracy": accuracy, "size": table.shape[1]}
                add(run, to="general_curve" if arguments.curve else "general_probe")
            print(f"{name} on {title}: {time.process_time() - began:.0f} s", flush=True)


def read_sets(arguments: argparse.Namespace) -> dict[str, Dataset]:
    """The sets that are asked for, by their titles."""
    folders = {
        title: arguments.data / title.replace("-", "").lower() for title in ("ESC-50", "FSDD", "EmoDB", "RAVDESS")
    }
    folders["drums"] = Path("examples/drums")
    wanted = arguments.only or folders
    return {title: read_dataset(folder) for title, folder in folders.items() if title in wanted}


def statistics(encoder: Any, dataset: Dataset) -> np.ndarray:
    """Mean and deviation over time of every block."""
    store = open_features(encoder, dataset.items, pool="statistics")
    assert not store.failures, store.failures
    return store.read(range(len(dataset))).features.flatten(1).numpy()


def embeddings(teacher: Teacher, dataset: Dataset) -> np.ndarray:
    """The teacher's embedding of every clip."""
    with torch.inference_mode():
        return np.stack([teacher(features(torch.from_numpy(wave)[None]))[1][0].numpy() for wave in waves(dataset)])


def log_mel_statistics(dataset: Dataset) -> np.ndarray:
    """Mean and deviation over time of each mel bin."""
    rows = []
    for wave in waves(dataset):
        spec = log_mel(torch.from_numpy(wave)[None], frontend_config("passt"))[0]
        rows.append(torch.cat([spec.mean(-1), spec.std(-1)]).numpy())
    return np.stack(rows)


def waves(dataset: Dataset) -> list[np.ndarray]:
    """Every clip at 32 kHz: of ESC-50 5 s, as it was published; at least one second."""
    found = []
    for item in dataset.items:
        wave = decode(item, RATE)
        wave = wave[:CLIP] if len(wave) < 8 * RATE else wave
        found.append(np.pad(wave, (0, max(0, RATE - len(wave)))))
    return found


def scores(title: str, dataset: Dataset, table: np.ndarray) -> dict[str, float]:
    """Accuracy of the probe, by row of the table: the share of all clips that is right when its fold is left out."""
    labels = dataset.targets().argmax(1)
    folds = folds_of(title, dataset)
    right = np.zeros(len(labels), bool)
    few = np.zeros(len(labels), bool)
    for number, test in enumerate(folds):
        train = np.setdiff1d(np.arange(len(labels)), test)
        right[test] = fitted(table, labels, train).predict(table[test]) == labels[test]
        if title == "ESC-50":
            draw = np.random.default_rng(number + 1)
            rows = np.concatenate([draw.permutation(train[labels[train] == one])[:SHOTS] for one in np.unique(labels)])
            few[test] = fitted(table, labels, rows).predict(table[test]) == labels[test]
    found = {title: float(right.mean())}
    return found | ({f"{title}, {SHOTS} clips a class": float(few.mean())} if title == "ESC-50" else {})


def folds_of(title: str, dataset: Dataset) -> list[np.ndarray]:
    """The clips of each test part."""
    if title in ("ESC-50", "drums"):
        folds = np.array([item.fold for item in dataset.items])
        return [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    groups = [item.group for item in dataset.items]
    return [test for _, test in GroupKFold(5).split(groups, groups=groups)]


def fitted(table: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Any:
    """The probe, fitted to some rows."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(table[rows], labels[rows])


def add(run: dict[str, Any], *, to: str) -> None:
    """Adds a finished run to what is known, in place of an earlier one of the same encoder and set."""
    with runs_to_add_to(to) as known:
        runs = {(one["encoder"], one["set"]): one for one in known["runs"]}
        runs[run["encoder"], run["set"]] = run
        result = {**about_this_run(), "runs": list(runs.values())}
        write_result(to, result, table_of(result["runs"]), title="The encoder in the package: probes")


def table_of(runs: list[dict[str, Any]]) -> list[str]:
    """A row for each encoder, a column for each set."""
    known = {(run["encoder"], run["set"]): run["accuracy"] for run in runs}
    sets = {title: wanted for title, wanted in WANTED.items() if any(run["set"] == title for run in runs)}
    lines = ["| linear probe on frozen features | " + " | ".join(sets) + " |", "|---|" + "--:|" * len(sets)]
    for name in dict.fromkeys(run["encoder"] for run in runs):
        cells = [f"{known[name, title]:.4f}" if (name, title) in known else "" for title in sets]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for place, what in enumerate(("floor", "aim")):
        cells = ["" if wanted[place] is None else f"{wanted[place]}" for wanted in sets.values()]
        lines.append(f"| *{what}* | " + " | ".join(cells) + " |")
    return lines


# --- labels -----------------------------------------------------------------------------------------------------------


def tags(arguments: argparse.Namespace) -> None:
    """How its labels of ESC-50's clips agree with the teacher's, and both with the truth."""
    dataset = read_dataset(arguments.data / "esc50")
    names = [name for name, _ in read_labels("audioset")]
    own = ossicle.load(arguments.model)
    teacher = Teacher(arguments.weights / "mn04_audioset").eval()
    clips = waves(dataset)
    student = np.stack([own.predict((wave, RATE)).scores for wave in clips])
    with torch.inference_mode():
        taught = np.stack([teacher(features(torch.from_numpy(w)[None]))[0].sigmoid()[0].numpy() for w in clips])
    truth = dataset.targets().argmax(1)
    right = {
        who: mapped(scores, names, [dataset.labels[one] for one in truth])
        for who, scores in (("student", student), ("teacher", taught))
    }
    wanted = taught >= 0.5
    seen = wanted.any(0)
    result = {
        **about_this_run(),
        "top1_agreement": float((student.argmax(1) == taught.argmax(1)).mean()),
        "map_against_teacher": float(average_precision_score(wanted[:, seen], student[:, seen], average="macro")),
        "labels_seen": int(seen.sum()),
        **{f"right_{who}": value for who, value in right.items()},
    }
    lines = [
        "| on the 2,000 clips of ESC-50 | student | teacher |",
        "|---|--:|--:|",
        f"| the highest label is the other's | {result['top1_agreement']:.3f} | |",
        f"| mean average precision, teacher's probability of at least 0.5 as truth ({seen.sum()} labels) "
        f"| {result['map_against_teacher']:.3f} | 1 |",
        "| the highest of the labels that `ESC50` maps to is the true class's "
        f"| {right['student']:.3f} | {right['teacher']:.3f} |",
    ]
    write_result("general_tags", result, lines, title="The encoder in the package: labels")


def mapped(scores: np.ndarray, names: list[str], truth: list[str]) -> float:
    """The share of clips whose class has the highest label of all that some class maps to."""
    columns = {label: [names.index(one) for one in mapped if one in names] for label, mapped in ESC50.items()}
    best = np.stack([scores[:, column].max(1) for column in columns.values()], axis=1).argmax(1)
    return float(np.mean([list(columns)[one] == label for one, label in zip(best, truth, strict=True)]))


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def tune(arguments: argparse.Namespace) -> None:
    """`ossicle train` as it comes, from the model and from random weights, one fold of ESC-50."""
    for init in arguments.init:
        row = find_checkpoint(init)
        called = row.name.partition(".")[2] if row else init  # with its version
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            options = ["--folds", arguments.fold, "-o", f"{folder}/run"]
            options += [] if init == arguments.model else ["--init", init]
            subprocess.run([sys.executable, "-m", "ossicle", "train", arguments.data / "esc50", *options], check=True)
            metrics = json.loads(Path(folder, "run", "metrics.json").read_text())
            found = {**metrics["headline"]["accuracy"], "minutes": (time.perf_counter() - began) / 60}
        with runs_to_add_to("general_tune") as known:
            rows = known.get("rows", {}) | {called: found}
            lines = [f"| ESC-50, fold {arguments.fold} | accuracy | 95 % interval | minutes |", "|---|--:|--:|--:|"]
            lines += [
                f"| `ossicle train esc50 --init {name}` "
                f"| {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {row['minutes']:.1f} |"
                for name, row in rows.items()
            ]
            result = {**about_this_run(), "threads": arguments.threads, "rows": rows}
            write_result("general_tune", result, lines, title="The encoder in the package: fine-tuning")


# --- what paid --------------------------------------------------------------------------------------------------------

TEACHER = ("labels", "logits", "embedding", "map", "hint")
PAID = {
    "all": (),
    "of the tagger its logits alone": ("--without", "embedding", "map", "hint"),
    "of the tagger its embedding alone": ("--without", "labels", "logits", "map", "hint"),
    "one teacher: the tagger": ("--without", "speech"),
    "half of the corpus": ("--corpus", "0.5"),
    "clips alone, not mixed": ("--alone",),
    "of the tagger logits and embedding": ("--without", "map", "hint"),
    "all, another seed": ("--seed", "7"),
    "one teacher: the speech encoder": ("--without", *TEACHER),
}
HALF = 16  # mixtures of half a step of these trainings


def paid(arguments: argparse.Namespace) -> None:
    """Trainings of so many steps from random weights, and the probe of what came out."""
    for name, options in PAID.items():
        work = arguments.work / name.replace(" ", "_")
        steps = ["--steps", str(arguments.steps), "--fall", str(arguments.steps // 4), "--batch", str(HALF)]
        command = [sys.executable, "-m", "pretraining.train", arguments.store, "-o", work, *steps, *options]
        teacher = ["--teacher", arguments.weights / "mn04_audioset", "--threads", str(arguments.threads)]
        subprocess.run([*command, *teacher], check=True)
        log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
        validation = next(row["validation"] for row in reversed(log) if "validation" in row)
        save(trained(torch.load(work / "state.pt", weights_only=True)), work / "bundle")
        model = load_encoder(str(work / "bundle"))
        found: dict[str, float] = {"topics": validation["topics"]}
        for title, dataset in read_sets(arguments).items():
            found |= scores(title, dataset, statistics(model, dataset))
        with runs_to_add_to("general_paid") as known:
            runs = list(({run["name"]: run for run in known["runs"]} | {name: {"name": name, **found}}).values())
            titles = [title for title in ("topics", *WANTED) if all(title in run for run in runs)]
            lines = [
                f"| {arguments.steps} steps of {2 * HALF} mixtures, from random weights | " + " | ".join(titles) + " |"
            ]
            lines += ["|---|" + "--:|" * len(titles)]
            lines += [f"| {run['name']} | " + " | ".join(f"{run[t]:.3f}" for t in titles) + " |" for run in runs]
            lines += [
                "",
                "`topics`: balanced accuracy of a probe on the corpus's validation part. One seed each row.",
            ]
            result = {**about_this_run(), "steps": arguments.steps, "runs": runs}
            write_result("general_paid", result, lines, title="The encoder in the package: what paid")


if __name__ == "__main__":
    main()
