"""Parameter trees: nested dicts and lists whose leaves are arrays.

A model's parameters, their gradients and the optimiser's moments are trees of one shape. The name of a leaf is its path, the
keys and list indices joined by dots: ``encoder.blocks.0.attn.qkv.w``.

Differs: ``jax.tree`` has more containers, and you can register your own; here there are dicts and lists, and everything else is
a leaf.
"""
from collections.abc import Callable, Iterator

import numpy as np

Tree = dict | list | np.ndarray
NO_BYTES = np.dtype("V0")       # a tree of this dtype is shapes alone, whatever its sizes


def map(function: Callable, first: Tree, *rest: Tree) -> Tree:
    """Apply function to matching leaves, and return the results in a tree of the same shape.

    Parameters
    ----------
    function : takes one leaf of each tree
    first, *rest : trees of one shape

    Raises
    ------
    ValueError
        if two trees have different keys or lengths, naming both
    """
    if isinstance(first, dict):
        for other in rest:
            if not isinstance(other, dict) or other.keys() != first.keys():
                raise ValueError(f"trees differ: expected the keys {sorted(first)}, got {_branch(other)}")
        return {key: map(function, value, *(other[key] for other in rest)) for key, value in first.items()}
    if isinstance(first, list):
        for other in rest:
            if not isinstance(other, list) or len(other) != len(first):
                raise ValueError(f"trees differ: expected a list of {len(first)}, got {_branch(other)}")
        return [map(function, *branches) for branches in zip(first, *rest, strict=True)]
    for other in rest:
        if isinstance(other, (dict, list)):
            raise ValueError(f"trees differ: expected a leaf, got {_branch(other)}")
    return function(first, *rest)


def _branch(branch):
    if isinstance(branch, dict):
        return f"the keys {sorted(branch)}"
    return f"a list of {len(branch)}" if isinstance(branch, list) else f"a leaf ({type(branch).__name__})"


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield (path, leaf) for every leaf, in the order of the dicts and lists."""
    if isinstance(tree, dict):
        branches = tree.items()
    elif isinstance(tree, list):
        branches = enumerate(tree)
    else:
        yield path, tree
        return
    for key, branch in branches:
        yield from leaves(branch, f"{path}.{key}" if path else str(key))


def unflatten(flat: dict[str, np.ndarray], like: Tree) -> Tree:
    """Put the leaves of a flat dict {path: leaf} into a tree of the shape of `like`.

    Raises
    ------
    ValueError
        if a path is missing from `flat` or left over in it, naming the first
    """
    paths = [path for path, _ in leaves(like)]
    if missing := [path for path in paths if path not in flat]:
        raise ValueError(f"{len(missing)} of {len(paths)} leaves are missing, the first is {missing[0]!r}")
    if extra := sorted(flat.keys() - set(paths)):
        raise ValueError(f"{len(extra)} leaves have no place in the tree, the first is {extra[0]!r}")
    values = iter([flat[path] for path in paths])
    return map(lambda _: next(values), like)


def add(a: Tree, b: Tree) -> Tree:
    """Leafwise a + b, in fresh arrays."""
    return map(lambda x, y: x + y, a, b)


def add_to(total: Tree, part: Tree) -> Tree:
    """Leafwise total += part, in place, and return total."""
    map(lambda x, y: np.add(x, y, out=x), total, part)
    return total


def count(tree: Tree) -> int:
    """The number of parameters: all numbers in all leaves."""
    return sum(leaf.size for _, leaf in leaves(tree))
