"""Published weights as a bundle in the local store: fetched, or from a file, once."""

import functools
from pathlib import Path

from ossicle.bundle.card import BY_AUTHORS, Card
from ossicle.bundle.convert import convert_checkpoint
from ossicle.bundle.schema import WEIGHTS
from ossicle.catalog import Checkpoint, shapes_digest, store
from ossicle.catalog.store import Published
from ossicle.errors import WeightsRefused
from ossicle.weights.foreign import read_checkpoint
from ossicle.weights.tensors import check_finite, save_weights


def published_folder(row: Checkpoint, *, local_files_only: bool = False) -> Path:
    """The folder of a row of the catalogue in the store, which is fetched if it is not there.

    Raises:
        WeightsRefused: it is not there and cannot be fetched, or what arrives is not that file
    """
    if folder := store.kept_folder(row):
        return folder
    if local_files_only:
        raise WeightsRefused(
            f"{row.name} is not in {store.store_folder()}, and nothing is to be fetched: {store.by_hand(row)}."
        )
    return store.settle(row, wanted=functools.partial(store.fetch, row), convert=functools.partial(keep, row))


def add_file(row: Checkpoint, file: Path) -> Path:
    """Puts a file that came another way into the store, as if it had been fetched.

    Raises: WeightsRefused for another file than the row's.
    """
    return store.settle(row, wanted=lambda _: store.adopt(row, file), convert=functools.partial(keep, row))


def fetch_file(row: Checkpoint, folder: Path) -> Published:
    """Downloads the file as it is published into a folder, for another machine; one that is there is compared.

    Raises: WeightsRefused as for the store.
    """
    if row.package_folder is not None:
        raise WeightsRefused(f"{row.name} comes with the package, in {row.package_folder}: nothing is to be fetched.")
    path = folder / row.file
    there = path.exists()
    published = store.adopt(row, path) if there else store.fetch(row, path)
    if not row.has_whole_hash:
        try:
            tensors = read_checkpoint(path)
            store.check_shapes(row, shapes_digest({name: tensor.shape for name, tensor in tensors.items()}))
        except WeightsRefused:
            if not there:
                path.unlink()
            raise
        store.pin(row, published)
    return published


def keep(row: Checkpoint, published: Published, folder: Path) -> None:
    """Writes a published file as the store keeps it: a bundle, or the tensors of a start under their own names.

    Raises: WeightsRefused for tensors that are not those of the network, or not finite.
    """
    if row.is_start:
        tensors = read_checkpoint(published.path)
        check_finite(tensors, source=row.file)
        save_weights(folder / WEIGHTS, tensors)
        return
    convert_checkpoint(
        published.path,
        output=folder,
        model=None if row.by_shapes else row.architecture,
        labels=row.labels,
        task=row.task,
        window_seconds=row.window_seconds,
        weights_license=row.license,
        card=card_of(row),
    )


def card_of(row: Checkpoint) -> Card:
    """The model card of published weights."""
    return Card(
        title=row.name,
        data=f"{BY_AUTHORS} {row.data}. Published as {row.url}.",
        metrics=(
            f"{row.metric} on {row.metric.data}, as its authors report it ({row.metric.source}); not measured here",
        )
        if row.metric
        else (),
        limits="\n\n".join(f"{about[0].upper()}{about[1:]}." for about in (row.note, row.terms) if about),
    )
