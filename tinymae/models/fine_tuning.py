"""Fine-tuning a Vision Transformer: which weights decay, how fast each layer learns, and positions for another image size."""
from dataclasses import fields, replace

import numpy as np

from tinymae import tree
from tinymae.messages import marked, message
from tinymae.models.mae import MAEConfig, StoredPositions
from tinymae.models.vit import ViTConfig, vit_positions


def vit_decays(params: dict) -> dict:
    """A tree of bool, True where weight decay acts.

    As in the fine-tuning code of He et al. 2021, vectors (bias, layer norm), the class token and the positions do not decay. In
    their pre-training the class token does, see `mae_decays`.
    """
    skipped = ("encoder.cls_token", "positions")
    return tree.unflatten({path: leaf.ndim > 1 and path not in skipped for path, leaf in tree.leaves(params)}, params)


def layer_rates(params: dict, config: ViTConfig, decay: float) -> dict:
    """Layer-wise learning-rate decay, for `AdamW(rates=...)`: a tree of float, each leaf's factor of the learning rate.

    Parameters
    ----------
    params : tree of `vit_init`
    decay : in (0, 1], the factor from one layer to the one below; He et al. use 0.65 (ViT-B) and 0.75 (ViT-L, ViT-H)

    Returns
    -------
    tree : 1 for the head and the last norm, decay for the top layer, ... decay^L for the bottom one, decay^(L + 1) for patch
        embedding, class token and positions

    Raises
    ------
    ValueError
        if decay is outside (0, 1], or params are not those of a classifier

    Notes
    -----
    The layers near the pixels are general and were learned from much more data, so they should move least. Clark et al. 2020
    (ELECTRA), Bao et al. 2021 (BEiT); He et al. 2021, appendix A.1 and table 9, `util/lr_decay.py` in their code.
    """
    if not 0 < decay <= 1:
        raise ValueError(message(
            marked("layer_rates: expected a decay in (0, 1], got {decay}: 1 moves all layers alike"), decay=decay
        ))
    top = config.depth + 1

    def height(path):
        if path.startswith("encoder.blocks."):
            return 1 + int(path.split(".")[2])
        if path.startswith(("encoder.patch_embed.", "encoder.cls_token", "positions")):
            return 0
        if path.startswith(("encoder.norm.", "fc_norm.", "head.")):
            return top
        raise ValueError(f"layer_rates: expected the parameters of a classifier, got {path!r}, which is in none of its layers")

    return tree.unflatten({path: decay ** (top - height(path)) for path, _ in tree.leaves(params)}, params)


def interpolate_positions(positions: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int]) -> np.ndarray:
    """Positions for another number of patches, by bicubic interpolation on the grid.

    Parameters
    ----------
    positions : ndarray of shape (N, D), row by row, without the class token's
    grid : patches down and across, N in all
    new_grid : patches down and across, N' in all

    Returns
    -------
    ndarray of shape (N', D), dtype of positions, fresh

    Raises
    ------
    ValueError
        if positions do not fill the grid, or a side of the new one is below 1

    Notes
    -----
    Equals torch.nn.functional.interpolate(mode="bicubic", align_corners=False), which the code of He et al. 2021 uses: Keys'
    cubic with a = -0.75, border positions repeated outwards. Fewer patches are sampled, not averaged. Dosovitskiy et al. 2020,
    section 3.2.
    """
    if len(positions) != grid[0] * grid[1]:
        hint = ": leave the class token's out" if len(positions) == grid[0] * grid[1] + 1 else ""
        raise ValueError(f"expected {grid[0] * grid[1]} positions for the grid {grid}, got {positions.shape}{hint}")
    if min(new_grid) < 1:
        raise ValueError(f"expected a grid of at least 1 x 1, got {new_grid}")
    down, across = (_cubic(old, new) for old, new in zip(grid, new_grid, strict=True))
    x = positions.reshape(*grid, -1)
    x = np.tensordot(across, x, axes=(1, 1))                    # (new cols, rows, D)
    x = np.tensordot(down, x, axes=(1, 1))                      # (new rows, new cols, D)
    return x.reshape(new_grid[0] * new_grid[1], -1).astype(positions.dtype)


def _cubic(old, new, a=-0.75):
    """The matrix (new, old) that resamples a row of `old` numbers to `new`: Keys 1981, equation 4."""
    center = (np.arange(new) + 0.5) * old / new - 0.5           # of each new position, in units of the old ones
    left = np.floor(center).astype(int)
    matrix = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        s = np.abs(center - (left + tap))
        near = (a + 2) * s * s * s - (a + 3) * s * s + 1        # 0 <= s <= 1
        far = a * (s * s * s - 5 * s * s + 8 * s - 4)           # 1 <= s <= 2
        np.add.at(matrix, (np.arange(new), np.clip(left + tap, 0, old - 1)), np.where(s <= 1, near, far))
    return matrix


def resize_vit(params: dict, config: ViTConfig, img_size: int | tuple[int, int]) -> tuple[dict, ViTConfig]:
    """The same model for images of another size: more or fewer patches, interpolated positions.

    Parameters
    ----------
    params : tree of `vit_init`; "head" may be missing
    img_size : side of a square or (rows, cols), multiples of patch_size

    Returns
    -------
    params : only "positions" is new, all other leaves are those given
    config : with "learned" positions, since no formula gives interpolated ones (the code of He et al. 2021 also trains them
        further)
    """
    changed = replace(config, img_size=img_size, position_encoding="learned")
    if changed.grid == config.grid:
        return params, config
    positions = vit_positions(params, config, params["encoder"]["cls_token"].dtype)
    positions = interpolate_positions(positions, config.grid, changed.grid)
    return {"encoder": params["encoder"], "positions": positions} | {
        name: branch for name, branch in params.items() if name not in ("encoder", "positions")
    }, changed


def resize_mae(config: MAEConfig, img_size: int | tuple[int, int]) -> MAEConfig:
    """The config of the same masked autoencoder for images of another size; its params stay as they are.

    The fixed positions of encoder and decoder are interpolated, not computed for the larger grid: every patch then has a
    position within the range that the model was trained on.

    Parameters
    ----------
    img_size : side of a square or (rows, cols), multiples of patch_size

    Notes
    -----
    Differs: transformers' ViTMAE interpolates the decoder's positions along the flattened grid, as if the patches were one row;
    here they are interpolated on the grid, like the encoder's.
    """
    changed = MAEConfig(**{field.name: getattr(config, field.name) for field in fields(MAEConfig)} | {"img_size": img_size})
    if changed.grid == config.grid:
        return config
    tables = (interpolate_positions(table, config.grid, changed.grid) for table in config.position_tables(np.float64))
    return StoredPositions(**vars(changed), tables=tuple(tables))
