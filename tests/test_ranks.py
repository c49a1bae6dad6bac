"""Training on MPI ranks is training alone, and a rank that fails ends them all, with a checkpoint to go on from."""
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from tinymae import tree
from tinymae.__main__ import main
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.tasks.restore import mae_gradient
from tinymae.train import checkpoint
from tinymae.train.launcher import LAUNCHERS
from tinymae.train.loop import Run, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers
from tinymae.train.ranks import Ranks, world

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])))
needs_mpi = pytest.mark.skipif(not MPIEXEC or not find_spec("mpi4py"), reason="needs an MPI: pip install mpi4py mpich")

CONFIG = MAEConfig(
    img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=2, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
    decoder_num_heads=2,
)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*LAUNCHERS, "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)


def on_ranks(count, *arguments, timeout=300):
    """The finished process of `mpiexec -n COUNT python ARGUMENTS`."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__)),
                   "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [MPIEXEC, "-n", str(count), sys.executable, *map(str, arguments)]
    with no_input() as stdin:
        return subprocess.run(command, env=environment, timeout=timeout, stdin=stdin, capture_output=True, text=True,
                              check=False)


@contextmanager
def no_input():
    """A standard input that neither gives anything nor ends: MPICH's mpiexec passes even an end on, and may fail over it."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def trained(ranks, batch, dtype):
    """(last loss, all parameters) of a short training with parts of three images."""
    def sample(rng, count):
        return rng.normal(size=(count, 12, 12, 2)).astype(dtype)

    rng = np.random.default_rng(0)
    params = mae_init(CONFIG, rng, dtype)
    run = Run(params, AdamW(params), rng)
    with Workers(1, ranks) as workers:
        gradient = mae_gradient(CONFIG, sample, batch, 3, workers)
        train(run, gradient, lambda step, progress: 1e-2, batch=batch, steps=3, bar=False, max_norm=1.0, ranks=ranks)
    return run.losses[-1], np.concatenate([leaf.ravel() for _, leaf in tree.leaves(run.params)])


TRAINED = """
import sys
import numpy as np
from test_ranks import trained
from tinymae.train.ranks import world

folder, *batches = sys.argv[1:]
for how, dtype in (("exact", np.float32), ("allreduce", np.float64)):
    for batch in batches:
        with world(exact=how == "exact") as ranks:
            loss, params = trained(ranks, int(batch), dtype)
        np.savez(f"{folder}/{how}_{batch}_{ranks.rank}_of_{ranks.size}.npz", loss=loss, params=params)
"""


@needs_mpi
@pytest.mark.parametrize(("count", "batches"), [(2, [10]), (3, [13, 5])])       # the last: two parts, and a rank without any
def test_training_on_ranks_is_training_alone(count, batches, tmp_path):
    done = on_ranks(count, "-c", TRAINED, tmp_path, *batches)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 2 * len(batches) * count
    for how, batch in itertools.product(("exact", "allreduce"), batches):
        loss, params = trained(Ranks(), batch, np.float32 if how == "exact" else np.float64)
        paths = sorted(tmp_path.glob(f"{how}_{batch}_*"))
        assert [path.name for path in paths] == [f"{how}_{batch}_{rank}_of_{count}.npz" for rank in range(count)]
        first = None
        for path in paths:
            with np.load(path) as saved:
                if how == "exact":
                    assert saved["loss"] == loss
                    np.testing.assert_array_equal(saved["params"], params)
                else:
                    assert saved["loss"] == pytest.approx(loss, rel=1e-10)
                    np.testing.assert_allclose(saved["params"], params, rtol=0, atol=1e-10)
                first = saved["params"] if first is None else first
                np.testing.assert_array_equal(saved["params"], first)             # equal on all ranks, to the last bit


RUN = ("train", "mae", "--embed-dim", "16", "--depth", "1", "--heads", "2", "--decoder-embed-dim", "16",
       "--decoder-depth", "1", "--decoder-heads", "2", "--threads", "1", "--batch", "48")


@pytest.fixture
def run(tmp_path):
    """RUN with images of our own: those of scikit-learn take each rank longer to import than its training does."""
    np.savez(tmp_path / "images.npz", images=np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8))
    return *RUN, "--data", str(tmp_path / "images.npz")


@needs_mpi
def test_the_command_prints_and_saves_once(run, tmp_path):
    assert main([*run, "--steps", "3", "--out", str(tmp_path / "alone")]) == 0
    done = on_ranks(2, "-m", "tinymae", *run, "--steps", "3", "--exact-sum", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 steps, loss on validation images") == 1
    alone, two = (checkpoint.load(tmp_path / name / "mae.npz", "mae", MAEConfig, mae_init) for name in ("alone", "two"))
    for (name, ours), (_, theirs) in zip(tree.leaves(two.params), tree.leaves(alone.params), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    assert two.extra["evaluations"] == alone.extra["evaluations"]


FAULTY = """
import os
import signal
import sys
from tinymae.__main__ import main
from tinymae.tasks import restore

victim, fault = int(sys.argv[1]), sys.argv[2]
forward, calls = restore.mae_forward, []

def failing(*arguments):
    calls.append(1)
    if len(calls) == 20:
        if fault == "error":
            raise ValueError("a bad image")
        os.kill(os.getpid(), getattr(signal, fault))
    return forward(*arguments)

if int(os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]) == victim:
    restore.mae_forward = failing
sys.exit(main(sys.argv[3:]))
"""


@needs_mpi
@pytest.mark.parametrize(("victim", "fault", "said"), [
    (2, "error", "rank 2 of 3 has failed: ValueError: a bad image"),
    (0, "error", "tinymae: a bad image"),
    (1, "SIGTERM", "rank 1 of 3 has failed: ended by a signal"),
    (1, "SIGINT", "interrupted; the same command with --resume continues from here"),
    (1, "SIGKILL", ""),
])
def test_a_rank_that_fails_ends_them_all_with_a_checkpoint(victim, fault, said, run, tmp_path):
    done = on_ranks(3, "-c", FAULTY, victim, fault, *run, "--minutes", "30", "--out", tmp_path / "out")
    assert (done.returncode == 0) == (fault == "SIGINT"), done.stderr
    assert said in done.stdout + done.stderr
    steps = checkpoint.load(tmp_path / "out" / "mae.npz", "mae", MAEConfig, mae_init).step
    if fault != "SIGKILL":                                      # then it is the one that was saved after the first gradient
        assert steps > 0 and "saved as it was" in done.stderr + "saved as it was" * (fault == "SIGINT")
    assert main([*run, "--resume", "--steps", str(steps + 2), "--out", str(tmp_path / "out")]) == 0


SILENT = """
import os
import signal
import sys
from tinymae.__main__ import main
from tinymae.train import ranks

signal.alarm(60)                                                # ends the test if nothing else does
whole, gradients = ranks.Ranks._sum, []

def stopping(self, array):
    gradients.extend([1] * (array.size > 2))
    if len(gradients) == 20:
        ranks.QUIET = 0.3                                       # not before: ranks begin at different times
    if self.rank == 1 and len(gradients) == 20:
        os.kill(os.getpid(), signal.SIGSTOP)                    # rank 0 is then in the middle of this sum
    whole(self, array)

ranks.Ranks._sum = stopping
sys.exit(main(sys.argv[1:]))
"""


@needs_mpi
def test_rank_0_says_that_it_waits_for_a_rank_that_is_silent(tmp_path):
    command = [MPIEXEC, "-n", "2", sys.executable, "-c", SILENT, *RUN, "--minutes", "30", "--out", str(tmp_path)]
    with no_input() as stdin, subprocess.Popen(
        command, stdin=stdin, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        said = next(line for line in process.stderr if "goes on waiting" in line)
        os.kill(int(re.search("`kill ([0-9]+)`", said)[1]), signal.SIGTERM)     # what it recommends
        ended = process.stderr.read()
    assert "tinymae: rank 0 has waited 0 s for other ranks" in said
    assert "tinymae: ended by a signal" in ended and "saved as it was" in ended
    assert checkpoint.load(tmp_path / "mae.npz", "mae", MAEConfig, mae_init).step > 0


@pytest.mark.parametrize(("rank", "times"), [(0, 1), (1, 0)])
def test_a_long_wait_is_said_once_by_rank_0_and_ends_nothing(rank, times, monkeypatch, capsys):
    asked = iter([False, False, False, True])
    comm = SimpleNamespace(
        rank=rank, size=2, Dup=lambda: SimpleNamespace(Iprobe=lambda tag: False),
        Iallreduce=lambda how, numbers: SimpleNamespace(Test=lambda: next(asked)),
    )
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=SimpleNamespace(IN_PLACE=None)))
    monkeypatch.setattr("tinymae.train.ranks.QUIET", -1.0)
    assert Ranks(comm).agree(2.0).tolist() == [2.0]
    assert capsys.readouterr().err.count("goes on waiting") == times


OTHER_DATA = """
import sys
from tinymae.train.ranks import world

with world() as ranks:
    ranks.check_options({"seed": ranks.rank // 2})
    ranks.agree()
"""


@needs_mpi
def test_ranks_with_other_data_are_refused():
    done = on_ranks(3, "-c", OTHER_DATA)
    assert done.returncode
    assert "rank 2 has other data or options than rank 0" in done.stderr


def test_without_mpiexec_there_is_one_rank_and_no_mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    ranks = world()
    assert (ranks.rank, ranks.size) == (0, 1)
    assert ranks.agree(2.0, 3.0).tolist() == [2.0, 3.0]
    assert ranks.own(7) == slice(0, 7)


def test_mpiexec_without_mpi4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(ImportError, match=r"MPI cannot be used: .*mpi4py.*tinymae\[mpi\]"):
        world()


def test_the_mpiexec_of_another_library(monkeypatch):
    alone = SimpleNamespace(COMM_WORLD=SimpleNamespace(rank=0, size=1), Get_library_version=lambda: "Own MPI 1.0\nmore")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=alone))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(RuntimeError, match=r"4 processes were started .*, and mpi4py sees 1: its library is Own MPI 1\.0"):
        world()


def test_srun_that_does_not_speak_to_mpi(monkeypatch):
    """`srun --mpi=none`: without this, each process trained a model of its own."""
    alone = SimpleNamespace(COMM_WORLD=SimpleNamespace(rank=0, size=1), Get_library_version=lambda: "Own MPI 1.0")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=alone))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(RuntimeError, match=r"2 processes were started together, and mpi4py sees 1: .*srun --mpi"):
        world()
    monkeypatch.setenv("PMI_SIZE", "1")                         # an mpiexec that srun has started on two nodes
    assert world().size == 1


@pytest.mark.parametrize("arguments", [[], ["lessons"], ["translate", "x"]])
def test_other_commands_do_not_run_several_times(arguments, monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "2")
    assert main(arguments) == 2
    assert "`train` alone" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_each_part_belongs_to_one_rank(size):
    ranks = [Ranks() for _ in range(size)]
    for rank, it in enumerate(ranks):
        it.rank, it.size = rank, size
    assert [i for it in ranks for i in range(7)[it.own(7)]] == list(range(7))
    assert ranks[0].own(7).stop > 0
