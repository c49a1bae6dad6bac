"""One gradient from many workers: threads over micro-batches.

The gradient of a mean is the mean of gradients. A batch is cut into micro-batches that fit the processor's cache, threads
work through them (NumPy lets go of the interpreter lock; each thread has one BLAS thread), and their gradients are summed:

    (1)  loss = sum_i loss_i,   dparams = sum_i dparams_i       over the micro-batches i, each with its share of the mean

The sum runs in the order of the micro-batches, whoever finishes first, and they are cut by the batch alone: the result is the
same to the last bit for any number of threads.
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import ThreadpoolController

from tinymae import tree


class Workers:
    """A pool of threads; while it is open, BLAS runs on one thread in each. Use it in a `with`.

    Parameters
    ----------
    threads : int, at least 1

    Raises
    ------
    ValueError
        where threads is not positive
    """

    def __init__(self, threads):
        if threads < 1:
            raise ValueError(f"expected at least 1 thread, got {threads}")
        self.threads = threads

    def __enter__(self):
        # The C library (glibc) hands the memory of a large array back to the system and asks for it again, page by page, for
        # the next one. It stops doing so for sizes up to the largest block it has seen freed, at most 32 MB: so we show it one.
        # That is a tenth of a step's time.
        np.empty(31 * 2**20, np.uint8)
        self._blas = ThreadpoolController().limit(limits=1, user_api="blas")
        self._pool = ThreadPoolExecutor(self.threads)
        return self

    def __exit__(self, *exception):
        self._pool.shutdown(cancel_futures=True)
        self._blas.restore_original_limits()

    def map(self, function, items):
        """Results of function(item), in the order of items, computed side by side."""
        return self._pool.map(function, items)


def micro_batches(size, micro_batch):
    """Slices that cut `size` examples into pieces of `micro_batch`, the last one perhaps shorter."""
    if size < 1 or micro_batch < 1:
        raise ValueError(f"expected a batch and a micro-batch of at least 1, got {size} and {micro_batch}")
    return [slice(start, min(start + micro_batch, size)) for start in range(0, size, micro_batch)]


def value_and_grad(function, parts, workers):
    """Loss and gradient of a batch, from its parts.

    Parameters
    ----------
    function : callable; function(part) -> (loss, dparams), both already multiplied by the part's share of the batch;
        dparams is a fresh tree, which this call may write into
    parts : list, cut by the batch and not by the number of threads
    workers : Workers

    Returns
    -------
    loss : float
    dparams : tree
    """
    results = workers.map(function, parts)
    loss, dparams = next(results)
    loss = float(loss)
    for part_loss, part in results:                             # (1)  in the order of the parts
        loss += float(part_loss)
        tree.add_to(dparams, part)
    return loss, dparams
