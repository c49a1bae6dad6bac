import numpy as np


def random_masking(noise, mask_ratio):
    kept = int(noise.shape[1] * (1 - mask_ratio))
    ids_shuffle = np.argsort(noise, axis=1)                     # (1)
    ids_keep = ids_shuffle[:, :kept]                            # (2)
    ids_restore = np.argsort(ids_shuffle, axis=1)               # (3)
    mask = (ids_restore >= kept).astype(int)                    # (4)
    return ids_keep, ids_restore, mask
