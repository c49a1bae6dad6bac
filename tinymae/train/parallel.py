"""One gradient from many workers: threads over micro-batches, and MPI ranks over machines.

The gradient of a mean is the mean of gradients. A batch is cut into micro-batches that fit the processor's cache, threads
work through them (NumPy lets go of the interpreter lock; each thread has one BLAS thread), and their gradients are summed:

    (1)  loss = sum_i loss_i,   dparams = sum_i dparams_i       over the micro-batches i, each with its share of the mean

The sum runs in the order of the micro-batches, whoever finishes first, and they are cut by the batch alone: the result is the
same to the last bit for any number of threads.

With MPI each rank (process) works on some parts that follow each other, and the sum of (1) goes from rank to rank: rank 0 adds
its parts, rank 1 goes on from there, and the last one sends the result to all. The order is the same, and so is every bit, for
any number of ranks. An Allreduce does not promise that: its library chooses the order by the number of ranks and the size of
the message, and a floating-point sum depends on its order. The price: the ranks add and send one after the other, which is
for a handful of ranks, and each holds the gradients of its parts until its turn comes.
"""
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import ThreadpoolController

from tinymae import tree


def world():
    """All processes that mpiexec has started, as an mpi4py communicator; without mpiexec, this one alone.

    Start them with `mpiexec -n 4 python -m mpi4py SCRIPT`: with `-m mpi4py` an error on one rank ends them all, without it the
    others wait for ever.

    Returns
    -------
    mpi4py.MPI.Comm

    Raises
    ------
    ImportError
        where mpi4py, or the MPI library that it needs, is not installed
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:                # RuntimeError: mpi4py is there, the library is not
        raise ImportError(
            f"cannot use MPI: {error}. It needs mpi4py and an MPI library with its mpiexec: pip install mpi4py mpich, or the "
            "mpich or openmpi of your system"
        ) from error
    return MPI.COMM_WORLD


class Workers:
    """A pool of threads; while it is open, BLAS runs on one thread in each. Use it in a `with`.

    Parameters
    ----------
    threads : int, at least 1
    comm : mpi4py communicator such as `world()`, whose ranks share the parts of `value_and_grad`; or None for this process
        alone. All ranks have to take the same steps: train for a number of steps, not of minutes, whose clocks differ

    Raises
    ------
    ValueError
        where threads is not positive
    """

    def __init__(self, threads, comm=None):
        if threads < 1:
            raise ValueError(f"expected at least 1 thread, got {threads}")
        self.threads = threads
        self.comm = comm

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
    parts : list, cut by the batch and not by the number of threads or ranks; the same on every rank
    workers : Workers; where it has a communicator, every rank has to make this call, with the same parameters in `function`

    Returns
    -------
    loss : float
    dparams : tree; on every rank the same bits, so parameters that start equal stay equal
    """
    comm = workers.comm
    rank, ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    first, last = (math.ceil(len(parts) * r / ranks) for r in (rank, rank + 1))
    results = workers.map(function, parts[first:last])
    if rank == 0:
        loss, dparams = next(results)
    else:
        results = list(results)                                 # our own work is done while the ranks before us add
        loss, dparams = comm.recv(source=rank - 1)
    loss = float(loss)
    for part_loss, part in results:                             # (1)  in the order of the parts
        loss += float(part_loss)
        tree.add_to(dparams, part)
    if rank + 1 < ranks:
        comm.send((loss, dparams), dest=rank + 1)
    if ranks > 1:
        loss, dparams = comm.bcast((loss, dparams), root=ranks - 1)
    return loss, dparams
