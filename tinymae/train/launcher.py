"""Whether this process is one of several that mpiexec has started. It imports neither MPI nor NumPy."""
import os

# How many there are, as the launchers of the usual MPI libraries say it: MPICH and Intel, Open MPI, MVAPICH.
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def launched() -> int | None:
    """How many processes were started together: 1 without mpiexec or srun, None if a launcher does not say how many."""
    for name in LAUNCHERS:
        if name in os.environ:
            return int(os.environ[name])
    return None if "PMIX_RANK" in os.environ else 1             # PMIx tells this process's number alone
