"""One gradient from many workers: the parts of a batch in, its loss and gradient out, on threads and on MPI ranks.

The gradient of a mean is the mean of gradients. A batch is cut into micro-batches that fit the processor's cache, threads
work through them (NumPy releases the interpreter lock; each thread has one BLAS thread), and their gradients are summed:

    (1)  loss = sum_i loss_i,   dparams = sum_i dparams_i       over the micro-batches i, each weighted by its fraction

The sum runs in the order of the micro-batches, whichever finishes first, and the cuts depend on the batch alone. So the result
is the same to the last bit for any number of threads.

With MPI each rank (process) works on consecutive parts, and `train.ranks` sums over the ranks: by Allreduce, which is fast, and
whose last bits depend on the number of ranks, because its library chooses the order of the sum; or exactly, from rank to rank,
with the same bits for any number of them.
"""
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import OpenBLASController, ThreadpoolController

from tinymae import tree
from tinymae.messages import message as _
from tinymae.train.ranks import Ranks


class Workers:
    """A pool of threads; while it is open, BLAS runs on one thread in each, and in the thread that opened it.

    Use it in a `with`, in any Python thread. Several may be open at the same time, inside each other or in different threads.
    When the last one closes, BLAS has as many threads as before the first one opened.

    Parameters
    ----------
    threads : at least 1
    ranks : `train.ranks.world()`, which share the parts of `value_and_grad`; None for this process alone

    Raises
    ------
    ValueError
        if threads is not positive
    RuntimeError
        if it is opened while it is open, or used while it is closed
    """

    # The BLAS of NumPy's wheels (OpenBLAS with threads of its own) has one number of threads for the whole process. So these
    # belong to the process, too: how many Workers are open, and what to restore when the last of them closes.
    _lock = threading.Lock()
    _openings = 0
    _found = {}                                                 # noqa: RUF012    {path: (library, threads)}

    def __init__(self, threads: int, ranks: Ranks | None = None):
        if threads < 1:
            raise ValueError(_("expected at least 1 thread, got {threads}", threads=threads))
        self.threads = threads
        self.ranks = ranks or Ranks()
        self._pool = None

    def __enter__(self) -> "Workers":
        if self._pool is not None:
            raise RuntimeError("these Workers are open already: make new ones for a `with` inside of theirs")
        # The C library (glibc) returns the memory of a large array to the system and requests it again, page by page, for the
        # next one. It stops doing so for sizes up to the largest block that was ever freed, at most 32 MB. So we free one here,
        # which saves a tenth of a step's time.
        np.empty(31 * 2**20, np.uint8)
        shared, own = _blas_libraries()
        with Workers._lock:
            _take_control()
            for library in shared:
                Workers._found.setdefault(library.filepath, (library, library.num_threads))
            _one_thread(shared)
            Workers._openings += 1
        self._own = [(library, library.num_threads) for library in own]
        _one_thread(own)
        self._pool = ThreadPoolExecutor(self.threads, initializer=_one_thread, initargs=(own,))
        return self

    def __exit__(self, *exception) -> None:
        try:
            self._pool.shutdown(cancel_futures=True)
        finally:                                                # Ctrl-C, while a thread still works
            self._pool = None
            for library, threads in self._own:
                library.set_num_threads(threads)
            with Workers._lock:
                Workers._openings -= 1
                if not Workers._openings:
                    _take_control()
                    for library, threads in Workers._found.values():
                        library.set_num_threads(threads)
                    Workers._found.clear()
                    OpenBLASController.clear_controlling_thread(force=True)

    def map(self, function: Callable, items: Iterable) -> Iterator:
        """Results of function(item), in the order of items, computed in parallel.

        Under a profiler, such as `trace`, they are computed one after another in this thread, because it sees no other.
        """
        if self._pool is None:
            raise RuntimeError("these Workers are closed: use them inside `with Workers(threads) as workers:`")
        return map(function, items) if sys.getprofile() else self._pool.map(function, items)


def _blas_libraries():
    """The BLAS libraries of this process: those with one number of threads for the process, those with one for each thread."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    shared = [library for library in libraries if library.internal_api == "openblas" and library.threading_layer != "openmp"]
    return shared, [library for library in libraries if library not in shared]


def _take_control():
    """Let this thread set the number for the process.

    threadpoolctl ignores, without a word, every thread but the one that set it first; that one may be busy elsewhere.
    """
    OpenBLASController.clear_controlling_thread(force=True)


def _one_thread(libraries):
    for library in libraries:
        library.set_num_threads(1)


def micro_batches(size: int, micro_batch: int) -> list[slice]:
    """Slices that cut `size` examples into parts of `micro_batch`, the last one perhaps shorter."""
    if size < 1 or micro_batch < 1:
        raise ValueError(f"expected a batch and a micro-batch of at least 1, got {size} and {micro_batch}")
    return [slice(start, min(start + micro_batch, size)) for start in range(0, size, micro_batch)]


def value_and_grad(function: Callable, parts: Sequence, workers: Workers) -> tuple[float, dict]:
    """Loss and gradient of a batch, from its parts.

    Parameters
    ----------
    function : function(part) -> (loss, dparams), both already multiplied by the part's fraction of the batch;
        dparams is a fresh tree, which this call may write into
    parts : cut by the batch and not by the number of threads or ranks; the same on every rank
    workers : with several ranks, each must make this call, with the same parameters in `function`

    Returns
    -------
    loss : float
    dparams : tree; the same bits on every rank, so parameters that start equal stay equal

    Raises
    ------
    ValueError
        if there are no parts
    """
    if not len(parts):
        raise ValueError("value_and_grad: expected at least one part, got none: is the batch empty?")
    ranks = workers.ranks
    return ranks.summed(workers.map(function, parts[ranks.own(len(parts))]), _added)


def _added(total, results):
    """(1)  A total, or None, and what is added to it, in the order of the parts."""
    for loss, dparams in results:
        total = (float(loss), dparams) if total is None else (total[0] + float(loss), tree.add_to(total[1], dparams))
    return total
