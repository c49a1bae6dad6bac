"""Parameter trees: nested dicts and lists whose leaves are arrays.

A model's parameters, their gradients and the optimiser's moments are trees of one shape.  A leaf is named by its path,
the keys and list positions joined by dots: ``encoder.blocks.0.attn.qkv.w``.

Differs: ``jax.tree`` knows more containers and lets anybody register theirs; here a dict, a list and an array are all.
"""
import numpy as np


def map(function, first, *rest):
    """Apply function to matching leaves, and return the results in a tree of the same shape.

    Parameters
    ----------
    function : callable taking as many leaves as there are trees
    first, *rest : trees of one shape

    Raises
    ------
    ValueError
        where two trees have other keys or lengths, naming both sides
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


def leaves(tree, path=""):
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


def unflatten(flat, like):
    """Put the leaves of a flat dict {path: leaf} into a tree of the shape of `like`.

    Raises
    ------
    ValueError
        naming the first path that is missing from `flat`, or left over in it
    """
    paths = [path for path, _ in leaves(like)]
    if missing := [path for path in paths if path not in flat]:
        raise ValueError(f"{len(missing)} of {len(paths)} leaves are missing, the first is {missing[0]!r}")
    if extra := sorted(flat.keys() - set(paths)):
        raise ValueError(f"{len(extra)} leaves have no place in the tree, the first is {extra[0]!r}")
    values = iter([flat[path] for path in paths])
    return map(lambda _: next(values), like)


def add(a, b):
    """Leafwise a + b, in fresh arrays."""
    return map(lambda x, y: x + y, a, b)


def add_to(total, part):
    """Leafwise total += part, in place, and return total."""
    map(lambda x, y: np.add(x, y, out=x), total, part)
    return total


def count(tree):
    """How many numbers the leaves hold together."""
    return sum(leaf.size for _, leaf in leaves(tree))
