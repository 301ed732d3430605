"""What autograd keeps for the backward pass. Needs torch alone, so that a peer's environment can import it."""

import torch


def kept_bytes(run, parameters):
    """Bytes of the distinct storages that autograd saves while `run()` computes, those of `parameters` left out."""
    theirs = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in theirs:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())
