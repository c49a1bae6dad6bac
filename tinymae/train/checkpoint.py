"""Checkpoints: the whole state of a training run, to and from one .npz file without pickle.

    meta        JSON: format, model, config, step, the optimiser's t, the rng's state, and the caller's `extra`: the options of
                the run, a translator's vocabularies
    params.*    one array for each parameter, named by its path
    m.*, v.*    the optimiser's moments

A file is written under a temporary name, flushed to the disk and renamed, so there is always a whole old file or a whole new
one. Resuming gives exactly the same result as an uninterrupted run.
"""
import json
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.files import never_downloaded, whole_file
from tinymae.messages import either
from tinymae.messages import message as _
from tinymae.packed import check_npz
from tinymae.train.optim import AdamW

FORMAT = "tinymae checkpoint 3"
READ = (FORMAT, "tinymae checkpoint 2")         # the latter, of tinymae 0.2, lacks the options: it can be used, but not resumed

# what zipfile, zlib and NumPy raise for a file that is cut short, damaged, or of another format
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, ValueError, TypeError, EOFError, OSError, KeyError, RuntimeError, AttributeError,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a file, as `load` returns it."""

    config: object                          # of the given class
    params: dict                            # tree
    step: int
    moments: dict | None                    # {"m": tree, "v": tree, "t": int}; None if no optimiser was saved
    rng: np.random.Generator | None         # in the state in which it was saved
    extra: dict


def save(
    path: Path | str, model: str, config: object, params: dict, *,
    step: int = 0, optimizer: AdamW | None = None, rng: np.random.Generator | None = None, extra: dict | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : ends in .npz; a missing folder is created
    model : a name that `load` must be given, too: "mae"
    config : frozen dataclass of numbers and strings
    params : tree
    step : steps done
    optimizer : None for a model to use but not to train further
    rng : of the training run
    extra : anything else that JSON can write

    Raises
    ------
    ValueError
        if path does not end in .npz, or rng is not a PCG64 generator
    TypeError
        if config or extra holds something that JSON cannot write
    FloatingPointError
        if a parameter or a moment is not finite: nothing is written, so that an older file stays
    OSError
        if the file cannot be written
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"expected a checkpoint path ending in .npz, got {path}")
    meta = {"format": FORMAT, "model": model, "config": asdict(config), "step": step, "extra": extra or {}}
    arrays = {f"params.{name}": leaf for name, leaf in tree.leaves(params)}
    if optimizer is not None:
        meta["t"] = optimizer.t
        for moment in ("m", "v"):
            arrays |= {f"{moment}.{name}": leaf for name, leaf in tree.leaves(getattr(optimizer, moment))}
    if rng is not None:
        meta["rng"] = _rng_state(rng)
    lost = _not_finite(arrays)
    if lost:
        raise FloatingPointError(_("{path}: not written, because {lost}", path=path, lost=lost))
    with whole_file(path) as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
    return path


def load(path: Path | str, model: str, config_class: type, init: Callable[..., dict]) -> Checkpoint:
    """Read a checkpoint and check that it is whole and fits.

    Parameters
    ----------
    path : the file
    model : the name that `save` was given
    config_class : the dataclass of its config
    init : init(config, None, dtype) returns a tree of the expected shapes; a field of the config that counts layers has a name
        that ends in depth or layers

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if the file is damaged, no tinymae checkpoint, of another model, does not fit its config, or holds a number that is not
        finite; names file and reason
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_("{path}: no such checkpoint: give the folder or file that a training run wrote", path=path))
    try:
        check_npz(path)
        # opened here, because np.load leaves a file that it cannot read open
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # reading everything checks every CRC
    except _DAMAGES as error:
        raise ValueError(_("{path}: damaged, or no .npz file ({reason})",
                           path=path, reason=never_downloaded(path) or error)) from error
    meta = _meta(path, arrays, model)
    for name, kind in (("config", dict), ("extra", dict), ("rng", dict), ("step", int), ("t", int)):
        value = meta.get(name, kind())
        if type(value) is not kind or (kind is int and not 0 <= value < 1 << 63):
            wanted = _("a table") if kind is dict else _("an integer from 0 on")
            raise ValueError(_("{path}: expected {wanted} as {name!r} in its meta, got {got!r}: damaged, or edited",
                               path=path, wanted=wanted, name=name, got=str(value)[:80]))
    lost = _not_finite(arrays)
    if lost:
        raise ValueError(_("{path}: {lost}: its training diverged, so the model is of no use: train it again, at a lower rate",
                           path=path, lost=lost))
    try:
        for field in fields(config_class):
            value = meta["config"].get(field.name, field.default)
            if type(field.default) is float and not (type(value) in (int, float) and math.isfinite(value)):
                raise ValueError(_("expected a number as {name}, got {got!r}", name=field.name, got=str(value)[:80]))
        config = config_class(**meta["config"])
        rng = _rng(meta["rng"]) if "rng" in meta else None
        step, extra = meta["step"], meta["extra"]
        _check_claims(path, arrays, config, init)
        like = init(config, None)
        params = _subtree(arrays, "params", like)
        moments = None
        if "t" in meta:
            moments = {"m": _subtree(arrays, "m", like), "v": _subtree(arrays, "v", like), "t": meta["t"]}
    except KeyError as error:
        raise ValueError(_("{path}: its meta lacks {error}", path=path, error=error)) from error
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(_("{path}: does not fit its own config: {error}", path=path, error=error)) from error
    if arrays:
        raise ValueError(_("{path}: holds {count} arrays that the model does not have, the first is {first!r}",
                           path=path, count=len(arrays), first=min(arrays)))
    return Checkpoint(config, params, step, moments, rng, extra)


def restore_optimizer(optimizer: AdamW, moments: dict) -> None:
    """Put the moments of a checkpoint into an optimiser made for its params."""
    optimizer.m, optimizer.v, optimizer.t = moments["m"], moments["v"], moments["t"]


def _meta(path, arrays, model):
    try:
        meta = json.loads(str(arrays.pop("meta")))
        known = meta["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(_("{path}: an .npz file, but no tinymae checkpoint: it has no readable `meta`", path=path)) from error
    if known not in READ:
        first = known == "tinymae checkpoint 1"
        hint = _("written by tinymae 0.1, which can load it") if first else _("written by another version?")
        raise ValueError(_("{path}: expected the format {expected}, got {known!r}: {hint}",
                           path=path, expected=either(map(repr, READ)), known=known, hint=hint))
    if meta.get("model") != model:
        raise ValueError(_("{path}: expected a {model!r} model, got {got!r}", path=path, model=model, got=meta.get("model")))
    return meta


def _not_finite(arrays):
    """The first array with a number that is not finite, in words; or None."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = np.count_nonzero(~np.isfinite(array))
            return _("{count} of the {size} numbers of {name} are not finite", count=count, size=array.size, name=name)
    return None


def _check_claims(path, arrays, config, init):
    """Compare the sizes in a config with the file, before a tree of these sizes is made."""
    most = max(path.stat().st_size, 1 << 16)
    sizes = vars(config) | {"num_patches": getattr(config, "num_patches", 0)}       # of a table of positions, not in the file
    for name, value in sizes.items():
        if isinstance(value, int) and value > most:
            raise ValueError(_("{name} is above {most}, in a file of {size} bytes",
                               name=name, most=most, size=path.stat().st_size))
    layers = [field.name for field in fields(config) if field.name.endswith(("depth", "layers"))]
    for name in layers:
        if getattr(config, name) > len(arrays):
            raise ValueError(_("{name} is {layers}, and the file has {count} arrays: fewer than layers",
                               name=name, layers=getattr(config, name), count=len(arrays)))

    def count(**changed):
        return tree.count(init(replace(config, **dict.fromkeys(layers, 1) | changed), None, tree.NO_BYTES))

    # the parameters of any number of layers: those of one, and for each further layer as many as the second adds
    needed = count() + sum((getattr(config, name) - 1) * (count(**{name: 2}) - count()) for name in layers)
    numbers = sum(array.nbytes for array in arrays.values()) // 4
    if needed > 2 * numbers + (1 << 20):                        # a few that are missing are named later
        raise ValueError(_("it asks for {needed} parameters, and the file has {numbers} numbers",
                           needed=needed, numbers=numbers))


def _subtree(arrays, prefix, like):
    names = [name for name in arrays if name.startswith(prefix + ".")]
    loaded = tree.unflatten({name.removeprefix(prefix + "."): arrays.pop(name) for name in names}, like)
    for (name, leaf), (_name, expected) in zip(tree.leaves(loaded), tree.leaves(like), strict=True):
        if leaf.shape != expected.shape or leaf.dtype not in (np.float32, np.float64):
            raise ValueError(_("expected {prefix}.{name} {expected} of floats, got {got} of {dtype}",
                               prefix=prefix, name=name, expected=expected.shape, got=leaf.shape, dtype=leaf.dtype))
    return loaded


def _rng_state(rng):
    """The state of a PCG64 generator in a form for JSON, with the seeds of the children that it will spawn."""
    if not isinstance(rng.bit_generator, np.random.PCG64):
        name = type(rng.bit_generator).__name__
        raise ValueError(f"expected a PCG64 generator, got {name}: a checkpoint restores no other, use np.random.default_rng")
    seeds = rng.bit_generator.seed_seq.state
    return {"state": rng.bit_generator.state, "seeds": {**seeds, "spawn_key": list(seeds["spawn_key"])}}


def _rng(saved):
    if not 0 < saved["seeds"].get("pool_size", 4) <= 1 << 10:
        raise ValueError(_("expected a pool_size from 1 to 1024 in its rng, got {size}: NumPy's is 4",
                           size=saved["seeds"]["pool_size"]))
    bits = np.random.PCG64(np.random.SeedSequence(**saved["seeds"]))
    bits.state = saved["state"]
    return np.random.Generator(bits)
