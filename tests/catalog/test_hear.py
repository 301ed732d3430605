"""The variants of HEAR load the weights that are published for them, by name."""

from collections.abc import Callable

import pytest
import torch

from ossicle import hear
from ossicle.catalog import Checkpoint, find_checkpoint


@pytest.mark.parametrize("variant", hear.VARIANTS)
def test_the_weights_of_every_variant_are_in_the_catalogue(variant: str) -> None:
    row = find_checkpoint(hear.VARIANTS[variant].weights)
    assert row is not None and row.name == hear.VARIANTS[variant].weights
    assert row.window_seconds == {"base20sec": 20, "base30sec": 30}.get(variant, 10)
    assert f"hop{'100' if '100' in variant else '160'}" in row.architecture or not variant.startswith("hop")


def test_a_variant_without_a_path_takes_its_published_weights(publish: Callable[..., Checkpoint]) -> None:
    publish("passt_base_s10_hop160.audioset_ap473")
    model = hear.load_model(variant="hop160base2lvlmel", device="cpu")
    assert (model.scene_embedding_size, model.timestamp_embedding_size) == (527 + 8, 2 * (527 + 8) + 768)
    embeddings, _ = hear.get_timestamp_embeddings(torch.zeros(1, 3_200), model)
    assert embeddings.shape == (1, 3, model.timestamp_embedding_size)
