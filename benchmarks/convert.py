"""Conversion of a full-size checkpoint: seconds, peak memory, and the logits of the published package.

    python benchmarks/convert.py --peer PYTHON        about a minute on two cores

A checkpoint of PaSST-S in the published layout (159 tensors, 86,153,758 parameters, random weights) is written once as
a flat state dict and once as Lightning's checkpoint with `net.` and `net_swa.`, and each is converted as by
`ossicle models convert`, in a process of its own. Its resident memory, with that of the process that opens the pickle,
is read every 5 ms; pages of mapped files count, and so do torch and the program itself. PYTHON is that of an
environment with hear21passt 0.0.26: there the published package loads the same file, and both compute the logits of the
same spectrograms.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import about_this_run, claim_table, write_by_processor

from ossicle.bundle import load_bundle
from ossicle.models import create_model
from ossicle.weights.tensors import load_weights

PEER = """
import contextlib, io, sys, torch
from hear21passt.models import passt
weights, spec, logits = sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()):
    net = passt.get_model(arch="passt_s_swa_p16_128_ap476", pretrained=False).eval()
    net.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    with torch.inference_mode():
        torch.save(net(torch.load(spec)[:, None])[0], logits)
"""
MEASURED = """
import json, sys, threading, time
from pathlib import Path

def resident(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)

def watch():
    while not ended.wait(0.005):
        others = [resident(pid) for pid in Path("/proc/self/task", str(main), "children").read_text().split()]
        peaks.update(program=max(peaks["program"], resident("self")), reader=max(peaks["reader"], *others, 0),
                     both=max(peaks["both"], resident("self") + sum(others)))

main, ended, peaks = threading.get_native_id(), threading.Event(), {"program": 0, "reader": 0, "both": 0}
began = time.perf_counter()
import ossicle.bundle
before, ready = resident("self"), time.perf_counter()
threading.Thread(target=watch, daemon=True).start()
done = ossicle.bundle.convert_checkpoint(sys.argv[1], output=sys.argv[2])
seconds = time.perf_counter() - ready
ended.set()
print(json.dumps({"import_s": ready - began, "convert_s": seconds, "before_kb": before, "peaks_kb": peaks}))
"""


def converted(path: Path, output: Path) -> dict[str, Any]:
    """What a conversion in a process of its own took."""
    done = subprocess.run([sys.executable, "-c", MEASURED, path, output], capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "file_kb": path.stat().st_size / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="python of an environment with hear21passt")
    peer = parser.parse_args().peer
    torch.manual_seed(0)
    state = create_model("passt_base_s10").state_dict()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        torch.save(state, folder / "flat.pt")
        both = {f"{prefix}.{key}": tensor for prefix in ("net", "net_swa") for key, tensor in state.items()}
        both = {key: tensor.clone() for key, tensor in both.items()}  # torch writes equal storages once
        torch.save({"state_dict": both, "epoch": 3}, folder / "both.ckpt")
        result = {**about_this_run(), "flat": converted(folder / "flat.pt", folder / "flat")}
        result["both"] = converted(folder / "both.ckpt", folder / "both")
        kept = load_weights(folder / "both" / "model.safetensors")
        result["same_tensors"] = all(torch.equal(kept[key], tensor) for key, tensor in state.items())
        if peer:
            torch.save(torch.randn(2, 128, 1000), folder / "spec.pt")
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            files = [folder / file for file in ("flat.pt", "spec.pt", "logits.pt")]
            subprocess.run([peer, "-c", PEER, *files], check=True, env=environment)
            theirs, model = torch.load(folder / "logits.pt"), load_bundle(folder / "flat").model
            with torch.inference_mode():
                ours = model(torch.load(folder / "spec.pt"))
            result["logits"] = {"difference": float((ours - theirs).abs().max()), "largest": float(theirs.abs().max())}
    write_by_processor("convert", result, table, title="Conversion of a published checkpoint")


def table(result: dict[str, Any]) -> list[str]:
    claims: list[tuple[str, str, str, bool | None]] = []
    weights = result["flat"]["file_kb"]
    for name, what in (("flat", "state dict"), ("both", "weights and their average")):
        one, peaks = result[name], result[name]["peaks_kb"]
        about = f"{what}, {one['file_kb'] * 1.024e-3:.0f} MB"
        claims += [
            (f"{about}: seconds", f"{one['convert_s']:.1f}", "at most 20", one["convert_s"] <= 20),
            (
                f"{about}: peak memory, {one['before_kb'] * 1.024e-3:.0f} MB of it the program itself",
                f"{peaks['both'] * 1.024e-3:.0f} MB, {peaks['both'] / weights:.2f} times the weights",
                "at most 2 times",
                peaks["both"] <= 2 * weights,
            ),
            (f"{about}: peak of the process that opens the pickle", f"{peaks['reader'] * 1.024e-3:.0f} MB", "", None),
        ]
    claims.append(("the tensors bit for bit", str(result["same_tensors"]), "True", result["same_tensors"]))
    if "logits" in result:
        found, largest = result["logits"]["difference"], result["logits"]["largest"]
        claims.append(
            (f"largest difference of logits to hear21passt, of {largest:.2g}", f"{found:.1e}", "1e-4", found <= 1e-4)
        )
    return claim_table(claims)


if __name__ == "__main__":
    main()
