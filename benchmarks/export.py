"""What an exported model costs and keeps: our eager float32 and bfloat16, ONNX in float32 and in eight bits.

    python benchmarks/export.py [--runs RUN ... --data ESC-50] [--random passt_base_s16 ...] [--threads 2] [--rounds 25]

Those of the stored result are `benchmarks/esc50.py main --seeds 2 --only 'patchout 10/3'`, and

    ossicle train ../shared/data/esc50 --model passt_small_s16 --folds 1 -o runs/esc50/passt_small_s16_25_0
        --set epochs=25 window=5.0 batch_size=16 balance=none patchout_t=10 patchout_f=3 roll=2.5
        label_smoothing=0.0 validation=0

Runs are folders of `ossicle train`; each is scored on its own test part of the data: accuracy, and how often the best
label is that of our float32. A network with random weights (`--random`) has no accuracy; its logits are compared. Some
minutes a model on two cores. Adds to results/export.json and writes export.md.

Seconds are those of one window, the median over the rounds. All four take turns in one process, with the same threads,
and a pause between them, since threads that wait for work are not idle at once.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import about_this_run, claim_table, in_turns, random_bundle, stored_runs, write_result

from ossicle.allocator import keep_freed_memory
from ossicle.export import export_model
from ossicle.export.formats import Session, open_onnx
from ossicle.export.int8 import megabytes, read_sounds
from ossicle.loading import load

SECONDS = (5, 10)
EAGER, HALF, ONNX, INT8 = "eager float32", "eager bf16", "ONNX float32", "ONNX int8"
FASTER = 1.6  # int8 than ONNX float32
AGREEMENT = 0.98
PAUSE = 0.05  # seconds


def answers_of(model: str | Path, folder: Path, *, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(clip, time) to logits by name, and what is known of the files."""
    done = export_model(model, output=folder / f"{Path(model).name}.onnx", int8=True)
    assert done.int8 is not None
    full, half = (load(model, device="cpu", precision=precision) for precision in ("float32", "bfloat16"))
    files = {ONNX: done.path, INT8: done.int8.path}
    sessions = {name: open_onnx(path, threads=threads) for name, path in files.items()}

    def logits_of(session: Session, waves: np.ndarray) -> np.ndarray:
        return session(waves)["logits"]

    answers = {EAGER: full.scores, HALF: half.scores}
    answers |= {name: functools.partial(logits_of, session) for name, session in sessions.items()}
    bundle = Path(model) / "model" if (Path(model) / "model").is_dir() else Path(model)
    sizes = {EAGER: megabytes(bundle / "model.safetensors")} | {name: megabytes(path) for name, path in files.items()}
    return answers, {"megabytes": sizes, "difference": done.agreement.difference}


def timed(answers: dict[str, Any], samples: int, *, rounds: int) -> dict[str, float]:
    """Median seconds of a window, in turns; the first turn warms up."""
    window = np.random.default_rng(0).normal(scale=0.1, size=(1, samples)).astype(np.float32)
    passes = {name: functools.partial(answer, window) for name, answer in answers.items()}
    return in_turns(passes, rounds=rounds, before=lambda: time.sleep(PAUSE))


def measure(model: str | Path, *, data: Path | None, name: str, threads: int, rounds: int) -> dict[str, Any]:
    """Everything about one model."""
    with tempfile.TemporaryDirectory() as folder:
        answers, row = answers_of(model, Path(folder), threads=threads)
        recognizer = load(model, device="cpu")
        row |= {"name": name, "kind": recognizer.bundle.model_name, "times": {}}
        longest = getattr(recognizer.model, "max_frames", None)
        for seconds in SECONDS:
            if longest is None or recognizer.frontend.frames(seconds * recognizer.rate) <= longest:
                row["times"][str(seconds)] = timed(answers, seconds * recognizer.rate, rounds=rounds)
        if data is None:
            windows = np.random.default_rng(1).normal(scale=0.1, size=(8, recognizer.window_samples()[0]))
            logits = {key: answer(windows.astype(np.float32)) for key, answer in answers.items()}
            wide = float(np.abs(logits[EAGER]).max())
            row["logit_difference"] = {key: float(np.abs(v - logits[EAGER]).max()) / wide for key, v in logits.items()}
            return row
        sounds = read_sounds(recognizer, data, model=str(model))
        logits = {key: np.concatenate([answer(w[None]) for w in sounds.windows]) for key, answer in answers.items()}
        truth = sounds.targets.argmax(1)
        row |= {
            "protocol": sounds.protocol,
            "clips": len(truth),
            "accuracy": {key: float((value.argmax(1) == truth).mean()) for key, value in logits.items()},
            "agreement": {
                key: float((value.argmax(1) == logits[EAGER].argmax(1)).mean()) for key, value in logits.items()
            },
        }
        return row


def claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, bool]]:
    """(what, got, wanted, met)."""
    found = []
    timed_kinds = set()
    for row in rows:
        # Two trainings of one network differ in time by nothing but the machine's unrest: the first speaks for both.
        for seconds, times in {} if row["kind"] in timed_kinds else row["times"].items():
            what = f"{row['kind']}, {seconds} s"
            ratio = times[EAGER] / times[ONNX]
            found.append((f"{what}: eager float32 / ONNX float32", f"{ratio:.2f}", "at least 1", ratio >= 1))
            ratio = times[ONNX] / times[INT8]
            found.append((f"{what}: ONNX float32 / int8", f"{ratio:.2f}", f"at least {FASTER}", ratio >= FASTER))
        timed_kinds.add(row["kind"])
        if "agreement" in row:
            share = row["agreement"][INT8]
            wanted = f"at least {AGREEMENT}"
            found.append((f"{row['name']}: int8 has the same best label", f"{share:.4f}", wanted, share >= AGREEMENT))
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The result as lines of Markdown."""
    lines = claim_table(claims(rows))
    lines += ["", "| model | how | MB | 5 s | 10 s | accuracy | same best label | logits differ by |"]
    lines.append("|---" * 8 + "|")
    for row in rows:
        for how in (EAGER, HALF, ONNX, INT8):
            size = row["megabytes"].get(how)
            seconds = [row["times"].get(str(s), {}).get(how) for s in SECONDS]
            cells = [
                "" if size is None else f"{size:.1f}",
                *("" if value is None else f"{value:.4f} s" for value in seconds),
                f"{row['accuracy'][how]:.4f}" if "accuracy" in row else "random weights",
                f"{row['agreement'][how]:.4f}" if "agreement" in row else "",
                f"{row['logit_difference'][how]:.1e}" if "logit_difference" in row else "",
            ]
            lines.append(f"| {row['name']} | {how} | {' | '.join(cells)} |")
    lines += ["", "Logits differ by the largest difference from eager float32, as a share of the largest logit."]
    protocols = sorted({f"{row['clips']} clips: {row['protocol']}" for row in rows if "protocol" in row})
    return lines + [f"Accuracy on {protocol}." for protocol in protocols]


def main() -> None:
    """Measures each model and reports after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of trainings")
    parser.add_argument("--data", type=Path, help="what they were trained on")
    parser.add_argument("--random", nargs="*", default=[], metavar="MODEL", help="networks with random weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    if args.runs and args.data is None:
        parser.error("--runs are scored on --data")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    rows = {row["name"]: row for row in stored_runs("export")["runs"]}
    pace = {"threads": args.threads, "rounds": args.rounds}
    with tempfile.TemporaryDirectory() as folder:
        cases: list[tuple[str, Path | str, Path | None]] = [(run.name, run, args.data) for run in args.runs]
        cases += [(name, random_bundle(Path(folder) / name, name, window=5.0), None) for name in args.random]
        for name, model, data in cases:
            rows[name] = measure(model, data=data, name=name, **pace)
            result = {"runs": list(rows.values()), **about_this_run()}
            write_result("export", result, table(result["runs"]), title="Exported models beside our own")


if __name__ == "__main__":
    main()
