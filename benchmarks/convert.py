"""Conversion of a full-size checkpoint: seconds, peak memory, and the logits of the published package.

    python benchmarks/convert.py --peer PYTHON        about a minute on two cores

A checkpoint of PaSST-S in the published layout (159 tensors, 86,153,758 parameters, random weights) is written once as
a flat state dict and once as Lightning's checkpoint with `net.` and `net_swa.`, and each is converted by
`ossicle models convert` in a process of its own, whose peak memory (with that of the process that opens the pickle) is
read when it ends; with it goes what the program takes before it has read anything. PYTHON is that of an environment
with hear21passt 0.0.26: there the same file is loaded by the published package, and both compute the logits of the same
spectrograms.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

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
import json, resource, sys, time
began = time.perf_counter()
import ossicle.bundle
before, ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
done = ossicle.bundle.convert_checkpoint(sys.argv[1], output=sys.argv[2])
used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"import_s": ready - began, "convert_s": time.perf_counter() - ready, "model": done.model,
                  "before_kb": before, "peak_kb": used[0], "reader_kb": used[1]}))
"""


def converted(path: Path, output: Path) -> dict[str, float | str]:
    """What a conversion in a process of its own took."""
    done = subprocess.run([sys.executable, "-c", MEASURED, path, output], capture_output=True, text=True, check=True)
    # The process that opens the pickle runs beside the other, which waits.
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


def table(result: dict) -> list[str]:
    claims = []
    for name, what in (("flat", "flat state dict"), ("both", "with its average, of which one is kept")):
        one = result[name]
        peak = max(one["peak_kb"], one["before_kb"] + one["reader_kb"])
        file = result["flat"]["file_kb"]
        claims += [
            (
                f"{what}, {one['file_kb'] * 1.024e-3:.0f} MB: seconds",
                f"{one['convert_s']:.1f}",
                "20",
                one["convert_s"] <= 20,
            ),
            (
                f"{what}: peak memory of the program, {one['before_kb'] * 1.024e-3:.0f} MB of it before it reads",
                f"{peak * 1.024e-3:.0f} MB, {peak / file:.2f} times the weights",
                "2 times",
                peak <= 2 * file,
            ),
            (f"{what}: memory of the process that opens the pickle", f"{one['reader_kb'] * 1.024e-3:.0f} MB", "", None),
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
