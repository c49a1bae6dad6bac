"""The processes that mpiexec starts (MPI calls them ranks): what they agree on, how they sum gradients, how they end together.

    with world() as ranks:                      # alone, without mpiexec: the same code
        train_mae(task, out, steps=1000, ranks=ranks)

Every rank holds the whole model, works on its part of each batch, and takes the same optimiser step, so parameters that start
equal stay equal. Gradients travel as one flat array. Rank 0 alone evaluates, saves and prints.

A collective call (one that all ranks make, such as Allreduce) waits for all of them, for ever if one has failed. So a sum is
not waited for but asked about again and again (Iallreduce), and between two questions rank 0 looks whether another rank has
sent an error. Other collective calls follow upon a sum: once it is there, all ranks will make them soon, and waiting is safe.

A host that is cut off sends no error, and looks from outside like one that is slow. So a long silence ends nothing: rank 0 says
that it waits, and how the run can be saved and ended.
"""
import atexit
import json
import math
import os
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterable

import numpy as np
from tqdm.auto import tqdm

from tinymae import tree
from tinymae.messages import message as _
from tinymae.train.launcher import launched

PATIENCE = 4.0                  # seconds that rank 0 has for saving after another rank has failed
FAILED = 1                      # the tag of the message that says so
QUIET = 60.0                    # seconds that rank 0 waits for the others before it says so
CHECK_EVERY = 100               # steps between two comparisons of the parameters


class RankFailed(ConnectionError):
    """Another rank has failed; the message says which one, and how."""


class Ranks:
    """The processes of one job, of which this is one; without arguments, this process alone.

    Parameters
    ----------
    comm : mpi4py communicator, or None for this process alone
    exact : sum gradients from rank to rank, in the order of the parts of the batch: the same bits for any number of ranks, for
        teaching and tests, because it is slow. Otherwise by Allreduce, whose order of summation depends on the number of ranks
    """

    def __init__(self, comm: object | None = None, *, exact: bool = False):
        self.rank, self.size = (0, 1) if comm is None else (comm.rank, comm.size)
        self.exact = exact
        self._comm = comm
        self._errors = comm.Dup() if self.size > 1 else None    # a channel of its own for what went wrong
        self._flat = None

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        """End all ranks if this one has failed: without that, the others would wait for it for ever."""
        if error is None or self.size == 1:
            return
        if self.rank == 0:                                      # its error is printed by whoever catches it, and then all end
            atexit.register(self._abort)
            return
        said = _("ended by a signal") if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        message = self._errors.isend(said, dest=0, tag=FAILED)  # noqa: F841  as long as it has a name, its memory is kept
        time.sleep(PATIENCE)                                    # rank 0 saves, says it, and ends this process, too
        print(_("tinymae: rank {rank}: {said}", rank=self.rank, said=said), file=sys.stderr, flush=True)
        self._abort()

    def _abort(self):
        """End all ranks, once mpiexec has had the time to pass on what was printed: it drops what it has not read by then."""
        sys.stderr.flush()
        time.sleep(0.5)
        self._comm.Abort(1)

    def own(self, count: int) -> slice:
        """Which of `count` parts this rank works on: consecutive ones. None of them, if there are fewer parts than ranks."""
        first, last = (-(-count * rank // self.size) for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def agree(self, *numbers: float) -> np.ndarray:
        """The sum of each number over all ranks, float64. All must call it. Rank 0 says so if it waits for over QUIET seconds.

        Raises
        ------
        RankFailed
            on rank 0, if another one has failed instead
        """
        total = np.array(numbers, np.float64)
        if self.size > 1:
            self._sum(total)
        return total

    def _sum(self, array):
        """Sum an array over all ranks, in place. Signals, and errors of other ranks, end the wait."""
        from mpi4py import MPI

        request, pause = self._comm.Iallreduce(MPI.IN_PLACE, array), 0.0
        speak_at = time.monotonic() + QUIET if self.rank == 0 else math.inf     # the others wait long when rank 0 evaluates
        while not request.Test():
            if self.rank == 0 and self._errors.Iprobe(tag=FAILED):
                status = MPI.Status()
                said = self._errors.recv(tag=FAILED, status=status)
                rank = status.Get_source()
                raise RankFailed(_("rank {rank} of {size} has failed: {said}", rank=rank, size=self.size, said=said))
            if time.monotonic() > speak_at:
                tqdm.write(_(
                    "tinymae: rank 0 has waited {seconds:.0f} s for other ranks, and goes on waiting: they are slow, or a host "
                    "or the network is down; `kill {process}` on {host} saves the run and ends it",
                    seconds=QUIET, process=os.getpid(), host=socket.gethostname(),
                ), file=sys.stderr)
                sys.stderr.flush()
                speak_at = math.inf
            time.sleep(pause)
            pause = min(pause + 1e-6, 1e-3)                     # short at first; a long wait need not keep a core busy

    def share(self, value: object) -> object:
        """What rank 0 hands in, on every rank."""
        return value if self.size == 1 else self._comm.bcast(value)

    def check_options(self, options: dict) -> None:
        """Compare what decides the result of a run: the fingerprint of its data, its seed, its settings.

        Raises
        ------
        ValueError
            on a rank that has other ones than rank 0
        """
        if self._differs(json.dumps(options, sort_keys=True).encode()):
            raise ValueError(_(
                "rank {rank} has other data or options than rank 0: expected the same files and the same command on every rank",
                rank=self.rank,
            ))

    def check_params(self, step: int, params: dict) -> None:
        """Compare the parameters, every CHECK_EVERY steps.

        Raises
        ------
        ValueError
            on a rank that has other ones than rank 0
        """
        if self.size == 1 or step % CHECK_EVERY:
            return
        if self._differs(b"".join(leaf.tobytes() for _name, leaf in tree.leaves(params))):
            raise ValueError(_(
                "rank {rank} has other parameters than rank 0 after {steps} steps: expected processors of one kind and one "
                "version of NumPy on every rank, because others round differently", rank=self.rank, steps=step,
            ))

    def _differs(self, content):
        """Whether this rank has other bytes than rank 0."""
        own = zlib.crc32(content)
        return self.share(own) != own

    def summed(self, results: Iterable, add: Callable) -> tuple[float, dict]:
        """Loss and gradient summed over the parts of all ranks.

        Parameters
        ----------
        results : (loss, dparams) of this rank's parts, in their order
        add : add(total or None, results) -> total, a pair (loss, dparams), or None if both are empty
        """
        if self.size == 1:
            return add(None, results)
        return self._exact_sum(list(results), add) if self.exact else self._allreduce(add(None, results))

    def _exact_sum(self, results, add):
        """Rank 0 adds its parts, rank 1 continues from there, and the last rank sends the result to all."""
        self.agree()                                            # all have computed their parts, so nobody waits for ever
        total = self._comm.recv(source=self.rank - 1) if self.rank else None
        total = add(total, results)
        if self.rank + 1 < self.size:
            self._comm.send(total, dest=self.rank + 1)
        return self._comm.bcast(total, root=self.size - 1)

    def _allreduce(self, total):
        loss, busy = self.agree(*((0.0, 0.0) if total is None else (total[0], 1.0)))
        if busy < self.size:                                    # rank 0 always has a part
            shapes = self.share(None if total is None else tree.map(lambda leaf: (leaf.shape, leaf.dtype), total[1]))
            dparams = tree.map(lambda it: np.zeros(*it), shapes) if total is None else total[1]
        else:
            dparams = total[1]
        leaves = [leaf for _name, leaf in tree.leaves(dparams)]
        size, dtype = sum(leaf.size for leaf in leaves), leaves[0].dtype
        if self._flat is None or (self._flat.size, self._flat.dtype) != (size, dtype):
            self._flat = np.empty(size, dtype)
        np.concatenate([leaf.ravel() for leaf in leaves], out=self._flat, casting="no")
        self._sum(self._flat)
        start = 0
        for leaf in leaves:
            leaf[...] = self._flat[start : start + leaf.size].reshape(leaf.shape)
            start += leaf.size
        return float(loss), dparams

    def threads(self) -> int:
        """A core for each thread: the cores of this machine, divided by its ranks."""
        if self.size == 1:
            return os.cpu_count()
        from mpi4py import MPI

        here = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        count = here.size
        here.Free()
        return max(1, os.cpu_count() // count)


def world(*, exact: bool = False) -> Ranks:
    """All processes that mpiexec (or srun) has started; without it, this process alone, and mpi4py is not needed.

    Parameters
    ----------
    exact : as `Ranks`

    Raises
    ------
    ImportError
        if there are several, and mpi4py, or the MPI library that it needs, is not installed
    RuntimeError
        if the library does not see them, because mpiexec belongs to another one, or srun speaks another language: each process
        would train a model of its own
    """
    started = launched()
    if started == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:                # RuntimeError: mpi4py is there, the library is not
        raise ImportError(_(
            "this is one of several processes that mpiexec or srun has started, and MPI cannot be used: {error}. pip install "
            "'tinymae[mpi]' brings mpi4py and an MPI library with its mpiexec; your system's mpich or openmpi is as good",
            error=error,
        )) from error
    comm = MPI.COMM_WORLD
    if started not in (None, comm.size):
        raise RuntimeError(_(
            "{started} processes were started together, and mpi4py sees {seen}: its library is {library}; start them with the "
            "mpiexec of that library, or with an `srun --mpi=...` that it speaks: pmi2 for MPICH, pmix for Open MPI",
            started=started, seen=comm.size, library=MPI.Get_library_version().splitlines()[0],
        ))
    return Ranks(comm, exact=exact)
