"""`ossicle bench`: what a network costs on this machine, and in which form it fits a budget."""

from typing import Annotated

import typer

from ossicle.cli.options import Device, EncoderPlace


def bench(
    model: Annotated[
        str,
        typer.Argument(
            help="Bundle folder, run folder, Hugging Face Hub id (user/name), or the name of a network, "
            "which is then timed with random weights."
        ),
    ],
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 10.0,
    batch: Annotated[int, typer.Option(min=1, help="Clips in one pass.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="By default as many as torch takes.")] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(help="Also measure with this fraction of the patch tokens, above 0 and below 1; may be repeated."),
    ] = None,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Also export it and measure the files: minutes for a pyramid.")
    ] = True,
    budget_ms: Annotated[
        float | None, typer.Option(min=0, help="Milliseconds for a clip: which form stays within them?")
    ] = None,
    device: Device = "auto",
    encoder: EncoderPlace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure seconds and memory of a network here, in each form that it can be run in."""
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
        print(f"{model} has no trained weights here: random ones, for the time and the memory alone.")
    print(f"{'':24} {'ms a clip':>10} {'real-time factor':>17} {'peak memory':>12}")
    for cost in costs:
        if cost.clip_seconds is None:
            print(f"{cost.variant.name:24} does not run here: {cost.problem}")
            continue
        memory = "" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.0f} MB"
        factor = f"{cost.clip_seconds / seconds:.4f}"
        print(f"{cost.variant.name:24} {1000 * cost.clip_seconds:10.2f} {factor:>17} {memory:>12}")
    if budget_ms is None:
        return
    if fits is not None:
        print(f"Within {budget_ms:g} ms a clip the most exact is {fits.variant.name}.")
    else:
        print(f"None stays within {budget_ms:g} ms a clip.")
