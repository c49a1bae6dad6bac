"""Whether this process is one of several that mpiexec or srun has started. It imports neither MPI nor NumPy."""
import os

# How many there are, as the launchers of the usual MPI libraries say it: MPICH and Intel, Open MPI, MVAPICH. Slurm's is the
# last, because an mpiexec within a Slurm job is itself started by srun, once on each node.
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched() -> int | None:
    """How many processes were started together: 1 without mpiexec or srun, None if a launcher does not say how many."""
    for name in LAUNCHERS:
        if name in os.environ:
            return int(os.environ[name])
    return None if "PMIX_RANK" in os.environ else 1             # PMIx tells this process's number alone
