"""Checkpoints: everything a training run is, in one .npz file without pickle.

    meta        JSON: format, model, config, step, the optimiser's t, the rng's state, what else the caller gives
    params.*    one array for each parameter, under its path
    m.*, v.*    the optimiser's moments

A file is written under another name, flushed to the disk and renamed: whatever happens, there is a whole old file or a whole
new one. Resumed from it, a run goes on as if it had never stopped, to the last bit.
"""
import json
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae import tree
from tinymae.files import whole_file

FORMAT = "tinymae checkpoint 2"

# what zipfile, zlib and NumPy raise for a file that is cut short, damaged, or something else
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, ValueError, TypeError, EOFError, OSError, KeyError, RuntimeError, AttributeError,
)


class Checkpoint(NamedTuple):
    """What `load` returns."""

    config: object      # of the class asked for
    params: dict        # tree
    step: int
    moments: dict       # {"m": tree, "v": tree, "t": int}, or None where no optimiser was saved
    rng: object         # numpy.random.Generator in the state it was saved in, or None
    extra: dict         # what else was saved


def save(path, model, config, params, step=0, optimizer=None, rng=None, extra=None):
    """Write a checkpoint in one piece.

    Parameters
    ----------
    path : str or Path, ending in .npz; its folder is made where it is missing
    model : str, "mae"
    config : frozen dataclass of numbers and strings
    params : tree
    step : int
    optimizer : train.optim.AdamW, or None for a file to use but not to resume from
    rng : numpy.random.Generator, or None
    extra : dict that JSON can write, or None

    Returns
    -------
    Path
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
    with whole_file(path) as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
    return path


def load(path, model, config_class, init):
    """Read a checkpoint and check that it is whole and fits.

    Parameters
    ----------
    path : str or Path
    model : str that `save` was given
    config_class : the dataclass of its config
    init : callable; init(config, None) gives a tree of the shapes to expect

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError
        where there is no such file
    ValueError
        where the file is damaged, no tinymae checkpoint, of another model, or does not fit its config; names file and reason
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint: give the folder or file that a training run wrote")
    try:
        # opened here, because np.load leaves a file that it cannot read open
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # reading everything checks every CRC
    except _DAMAGES as error:
        raise ValueError(f"{path}: damaged, or no .npz file ({error})") from error
    meta = _meta(path, arrays, model)
    try:
        config = config_class(**meta["config"])
        rng = _rng(meta["rng"]) if "rng" in meta else None
        step, extra = meta["step"], meta["extra"]
        like = init(config, None)
        params = _subtree(arrays, "params", like)
        moments = None
        if "t" in meta:
            moments = {"m": _subtree(arrays, "m", like), "v": _subtree(arrays, "v", like), "t": meta["t"]}
    except KeyError as error:
        raise ValueError(f"{path}: its meta lacks {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not fit its own config: {error}") from error
    if arrays:
        raise ValueError(f"{path}: holds {len(arrays)} arrays that the model does not have, the first is {min(arrays)!r}")
    return Checkpoint(config, params, step, moments, rng, extra)


def restore_optimizer(optimizer, moments):
    """Put saved moments into an optimiser made for the loaded params."""
    optimizer.m, optimizer.v, optimizer.t = moments["m"], moments["v"], moments["t"]


def _meta(path, arrays, model):
    try:
        meta = json.loads(str(arrays.pop("meta")))
        known = meta["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: an .npz file, but no tinymae checkpoint: it has no readable `meta`") from error
    if known != FORMAT:
        hint = "written by tinymae 0.1, which can load it" if known == "tinymae checkpoint 1" else "written by another version?"
        raise ValueError(f"{path}: expected the format {FORMAT!r}, got {known!r}: {hint}")
    if meta.get("model") != model:
        raise ValueError(f"{path}: expected a {model!r} model, got {meta.get('model')!r}")
    return meta


def _subtree(arrays, prefix, like):
    names = [name for name in arrays if name.startswith(prefix + ".")]
    loaded = tree.unflatten({name.removeprefix(prefix + "."): arrays.pop(name) for name in names}, like)
    for (name, leaf), (_, expected) in zip(tree.leaves(loaded), tree.leaves(like), strict=True):
        if leaf.shape != expected.shape or leaf.dtype not in (np.float32, np.float64):
            raise ValueError(f"expected {prefix}.{name} {expected.shape} of floats, got {leaf.shape} of {leaf.dtype}")
    return loaded


def _rng_state(rng):
    """The state of a PCG64 generator as JSON takes it, with the seeds of the children it will spawn."""
    seeds = rng.bit_generator.seed_seq.state
    return {"state": rng.bit_generator.state, "seeds": {**seeds, "spawn_key": list(seeds["spawn_key"])}}


def _rng(saved):
    bits = np.random.PCG64(np.random.SeedSequence(**saved["seeds"]))
    bits.state = saved["state"]
    return np.random.Generator(bits)
