"""`ossicle bench`: measure speed and memory of a network, and recommend a variant within a budget."""

from typing import Annotated

import typer

from ossicle.cli.options import Device, EncoderPlace


def bench(
    model: Annotated[
        str,
        typer.Argument(
            help="Bundle folder, run folder, published weights by name, Hub id (user/name), or the name of a network "
            "(measured with random weights)."
        ),
    ],
    seconds: Annotated[float, typer.Option(help="Length of a clip in seconds.")] = 10.0,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default torch's number.")] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(help="Also measure with this fraction of the patch tokens, between 0 and 1; repeatable."),
    ] = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files/--no-files", help="Also measure exported files; exporting a pyramid network takes minutes."
        ),
    ] = True,
    budget_ms: Annotated[
        float | None,
        typer.Option(min=0, help="Recommend a variant that takes at most this many milliseconds per clip."),
    ] = None,
    device: Device = "auto",
    encoder: EncoderPlace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure speed and memory of a network on this machine, for each way to run it."""
    import json

    from ossicle.bench.forms import Work, fitting, variants
    from ossicle.bench.measure import measure
    from ossicle.bench.worker import is_registry_name

    work = Work(model=model, seconds=seconds, batch=batch, threads=threads, device=device, encoder=encoder)
    from ossicle.jobs.progress import counting

    with counting("Passes") as progress:
        costs = measure(work, variants(keep=keep or (), files=files), progress=progress)
    fits = None if budget_ms is None else fitting(costs, budget_seconds=budget_ms / 1000)
    if as_json:
        rows = [
            {
                "variant": cost.variant.name,
                "clip_seconds": cost.clip_seconds,
                "real_time_factor": cost.clip_seconds and cost.clip_seconds / seconds,
                "peak_bytes": cost.peak_bytes,
                "problem": cost.problem or None,
            }
            for cost in costs
        ]
        about = {"model": model, "random_weights": is_registry_name(model), "seconds": seconds, "batch": batch}
        about |= {"threads": threads, "device": device, "budget_ms": budget_ms}
        print(json.dumps({**about, "variants": rows, "recommended": fits and fits.variant.name}, indent=1))
        return
    if is_registry_name(model):
        print(f"{model} has random weights, for measuring time and memory only.")
    print(f"{'':24} {'ms per clip':>11} {'real-time factor':>17} {'peak memory':>12}")
    for cost in costs:
        if cost.clip_seconds is None:
            print(f"{cost.variant.name:24} not available: {cost.problem}")
            continue
        memory = "" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.0f} MB"
        factor = f"{cost.clip_seconds / seconds:.4f}"
        print(f"{cost.variant.name:24} {1000 * cost.clip_seconds:11.2f} {factor:>17} {memory:>12}")
    if budget_ms is None:
        return
    if fits is not None:
        print(f"Most exact variant within {budget_ms:g} ms per clip: {fits.variant.name}.")
    else:
        print(f"No variant is within {budget_ms:g} ms per clip.")
