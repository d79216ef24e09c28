"""A fingerprint of weights that does not depend on layout or on bf16/fp32 storage."""

import hashlib
from collections.abc import Mapping

import torch

__all__ = ["weights_digest"]


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return `sha256:...` over the names, shapes and fp32 values of weights, in the order of their names.

    A bf16 weight and its exact fp32 copy have the same digest.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
