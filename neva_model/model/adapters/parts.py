"""How a linear layer of Core's holds the outputs of several of Hugging Face's."""

import torch

from neva_recipes.families import Layout

__all__ = ["join_parts", "join_rows", "split_parts", "split_rows"]


def join_parts(parts: list[torch.Tensor], layout: Layout, groups: int, dimension: int = -1) -> torch.Tensor:
    """Return parts of a dimension as one, in the order in which a layer holds them.

    Args:
        parts: The parts, in the order of the layer's sites.
        layout: How the layer holds them.
        groups: Number of groups of queries, which Core interleaves with keys and values.
        dimension: The dimension, the first or the last one.
    """
    if layout is not Layout.GROUPS:
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dimension)
    inner = 1 if dimension == 0 else -1
    joined = torch.cat([part.unflatten(dimension, (groups, -1)) for part in parts], dim=inner)
    return joined.flatten(0, 1) if dimension == 0 else joined.flatten(-2)


def join_rows(parts: list[torch.Tensor], layout: Layout, groups: int) -> torch.Tensor:
    """Return parts of the rows of a weight as one, as `join_parts` does."""
    return join_parts(parts, layout, groups, 0)


def split_parts(
    joined: torch.Tensor, sizes: list[int], layout: Layout, groups: int, dimension: int = -1
) -> list[torch.Tensor]:
    """Return the parts that `join_parts` makes one of.

    Args:
        joined: All parts.
        sizes: The size of each.
        layout: How the layer holds them.
        groups: Number of groups of queries.
        dimension: The dimension, the first or the last one.
    """
    if layout is not Layout.GROUPS:
        return list(joined.split(sizes, dim=dimension))
    inner = 1 if dimension == 0 else -1
    pieces = joined.unflatten(dimension, (groups, -1)).split([size // groups for size in sizes], dim=inner)
    return [piece.flatten(0, 1) if dimension == 0 else piece.flatten(-2) for piece in pieces]


def split_rows(joined: torch.Tensor, sizes: list[int], layout: Layout, groups: int) -> list[torch.Tensor]:
    """Return the parts of the rows of a weight, as `split_parts` does."""
    return split_parts(joined, sizes, layout, groups, 0)
