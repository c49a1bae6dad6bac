"""One gradient from many threads and ranks: the same to the last bit for any number of them, and nothing is left switched."""
import os
import queue
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinymae import tree
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.tasks.restore import mae_gradient
from tinymae.train.loop import Run, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad, world

CONFIG = MAEConfig(
    img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=2, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
    decoder_num_heads=2,
)


def problem(batch, dtype=np.float32):
    """Parameters, images and noise of a batch."""
    rng = np.random.default_rng(3)
    return mae_init(CONFIG, rng, dtype), rng.normal(size=(batch, 12, 12, 2)).astype(dtype), rng.random((batch, 9))


def in_parts(params, images, noise, micro_batch, threads):
    batch = len(images)

    def part(piece):
        share = (piece.stop - piece.start) / batch
        loss, cache = mae_forward(images[piece], params, CONFIG, noise[piece])
        return loss * share, mae_backward(share, cache)

    with Workers(threads) as workers:
        return value_and_grad(part, micro_batches(batch, micro_batch), workers)


def blas_threads():
    return [module["num_threads"] for module in threadpool_info() if module["user_api"] == "blas"]


@pytest.fixture
def three_blas_threads():
    """BLAS on three threads, whatever the machine has, so that a limit of one shows."""
    with threadpool_limits(3, user_api="blas"):
        if set(blas_threads()) != {3}:
            pytest.skip("threadpoolctl cannot set this NumPy's BLAS")
        yield


def test_any_number_of_threads_gives_the_same_bits():
    given = problem(11)
    reference = None
    for threads in (1, 2, 3) * 4:
        loss, dparams = in_parts(*given, micro_batch=2, threads=threads)
        if reference is None:
            reference = loss, dparams
        assert loss == reference[0], threads
        for (path, ours), (_, theirs) in zip(tree.leaves(dparams), tree.leaves(reference[1]), strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{path}, {threads} threads")


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7, 100])      # 3 leaves a part of 1
def test_parts_sum_to_the_whole(micro_batch):
    params, images, noise = problem(7, np.float64)
    loss, cache = mae_forward(images, params, CONFIG, noise)
    dparams = mae_backward(1.0, cache)
    parts_loss, parts = in_parts(params, images, noise, micro_batch, threads=2)
    assert isinstance(parts_loss, float) and parts_loss == pytest.approx(float(loss), rel=1e-13)
    for (path, ours), (_, whole) in zip(tree.leaves(parts), tree.leaves(dparams), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-13 * max(np.abs(whole).max(), 1), err_msg=path)


def test_the_sum_runs_in_the_order_of_the_parts_whoever_finishes_first():
    numbers = [1e16, 1.0, -1e16, 1.0]                   # in floating point every order has another sum
    finished = [threading.Event() for _ in numbers]

    def last_first(i):
        if i + 1 < len(numbers):
            assert finished[i + 1].wait(timeout=30)
        finished[i].set()
        return numbers[i], {"w": np.array([numbers[i]])}

    with Workers(len(numbers)) as workers:
        loss, dparams = value_and_grad(last_first, range(len(numbers)), workers)
    assert loss == ((1e16 + 1.0) - 1e16) + 1.0 == 1.0 != sum(reversed(numbers))
    assert dparams["w"][0] == 1.0


def test_one_part_is_handed_through():
    gradient = {"w": np.arange(3.0)}
    with Workers(2) as workers:
        loss, dparams = value_and_grad(lambda part: (np.float32(part), gradient), [2.5], workers)
    assert loss == 2.5 and type(loss) is float and dparams is gradient


def test_map_keeps_the_order_and_uses_the_threads():
    together = threading.Barrier(2, timeout=30)         # passes only where two threads are in it at once

    def function(item):
        together.wait()
        return item * item

    with Workers(2) as workers:
        assert list(workers.map(function, range(6))) == [0, 1, 4, 9, 16, 25]


def test_blas_has_one_thread_inside_and_the_old_number_afterwards(three_blas_threads):
    with Workers(2) as workers:
        assert set(blas_threads()) == {1}
        assert all(set(seen) == {1} for seen in workers.map(lambda _: blas_threads(), range(4)))
    assert set(blas_threads()) == {3}


def test_an_exception_reaches_the_caller_and_leaves_nothing_switched(three_blas_threads):
    started = threading.active_count()

    def fails(part):
        if part == 2:
            raise FloatingPointError("part 2 went wrong")
        return 1.0, {"w": np.ones(1)}

    with pytest.raises(FloatingPointError, match="part 2 went wrong"):
        with Workers(2) as workers:
            value_and_grad(fails, range(5), workers)
    assert set(blas_threads()) == {3}
    assert threading.active_count() == started


def test_workers_can_be_opened_again():
    workers = Workers(2)
    for _ in range(2):
        with workers:
            assert list(workers.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.parametrize("threads", [0, -2])
def test_no_threads(threads):
    with pytest.raises(ValueError, match=f"at least 1 thread, got {threads}"):
        Workers(threads)


@pytest.mark.parametrize(("size", "micro_batch", "lengths"), [
    (8, 4, [4, 4]), (9, 4, [4, 4, 1]), (3, 4, [3]), (4, 4, [4]), (5, 1, [1] * 5), (1, 1, [1]),
])
def test_micro_batches_cover_the_batch_exactly(size, micro_batch, lengths):
    pieces = micro_batches(size, micro_batch)
    assert [piece.stop - piece.start for piece in pieces] == lengths
    covered = np.concatenate([np.arange(size)[piece] for piece in pieces])
    np.testing.assert_array_equal(covered, np.arange(size))


def test_no_parts():
    with Workers(1) as workers, pytest.raises(ValueError, match="at least one part, got none: is the batch empty"):
        value_and_grad(lambda part: (1.0, {}), [], workers)


@pytest.mark.parametrize(("size", "micro_batch"), [(0, 4), (-1, 4), (4, 0), (4, -1)])
def test_micro_batches_errors(size, micro_batch):
    with pytest.raises(ValueError, match=f"at least 1, got {size} and {micro_batch}"):
        micro_batches(size, micro_batch)


# ---- MPI ranks ---------------------------------------------------------------------------------------------------------

class Comm:
    """What `value_and_grad` uses of an MPI communicator, between threads."""

    def __init__(self, rank, mailboxes):
        self.rank, self.size, self.mailboxes = rank, len(mailboxes), mailboxes

    def send(self, message, dest):
        copy = message[0], tree.map(np.copy, message[1])        # as over a network: nothing is shared
        self.mailboxes[dest][self.rank].put(copy)

    def recv(self, source):
        return self.mailboxes[self.rank][source].get(timeout=30)

    def bcast(self, message, root):
        if self.rank != root:
            return self.recv(root)
        for rank in range(self.size):
            if rank != root:
                self.send(message, rank)
        return message


def on_ranks(ranks, function, threads=1):
    """[function(workers) of each rank]; the ranks run side by side."""
    mailboxes = [[queue.Queue() for _ in range(ranks)] for _ in range(ranks)]
    with ExitStack() as stack, ThreadPoolExecutor(ranks) as pool:
        every = [stack.enter_context(Workers(threads, Comm(rank, mailboxes))) for rank in range(ranks)]
        return list(pool.map(function, every))


def same_bits(ours, reference):
    assert ours[0] == reference[0]
    for (path, a), (_, b) in zip(tree.leaves(ours[1]), tree.leaves(reference[1]), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.parametrize(("ranks", "threads"), [(1, 1), (2, 1), (3, 2), (4, 1), (9, 1)])        # 9 ranks for 6 parts
def test_any_number_of_ranks_gives_the_same_bits(ranks, threads):
    params, images, noise = problem(11)

    def part(piece):
        share = (piece.stop - piece.start) / 11
        loss, cache = mae_forward(images[piece], params, CONFIG, noise[piece])
        return loss * share, mae_backward(share, cache)

    reference = in_parts(params, images, noise, micro_batch=2, threads=1)
    for ours in on_ranks(ranks, lambda workers: value_and_grad(part, micro_batches(11, 2), workers), threads):
        assert type(ours[0]) is float
        same_bits(ours, reference)


def test_each_part_is_worked_on_by_one_rank():
    seen = queue.Queue()

    def part(i):
        seen.put(i)
        return 1.0, {"w": np.array([float(i)])}

    for loss, dparams in on_ranks(3, lambda workers: value_and_grad(part, range(7), workers)):
        assert loss == 7 and dparams["w"].tolist() == [21.0]
    assert sorted(seen.queue) == list(range(7))


def test_the_sum_runs_in_the_order_of_the_parts_over_the_ranks():
    numbers = [1e16, 1.0, -1e16, 1.0]                           # (1e16 + 1) + (-1e16 + 1), rank by rank, would be 0

    def part(i):
        return numbers[i], {"w": np.array([numbers[i]])}

    for loss, dparams in on_ranks(2, lambda workers: value_and_grad(part, range(4), workers)):
        assert loss == dparams["w"][0] == 1.0


def trained(workers):
    """(last loss, parameters) of a short training."""
    def sample(rng, count):
        return rng.normal(size=(count, 12, 12, 2)).astype(np.float32)

    rng = np.random.default_rng(0)
    params = mae_init(CONFIG, rng)
    run = Run(params, AdamW(params), rng)
    gradient = mae_gradient(CONFIG, sample, 10, 3, workers)
    train(run, gradient, lambda step, progress: 1e-2, batch=10, steps=3, bar=False, max_norm=1.0)
    return run.losses[-1], run.params


def test_training_on_ranks_is_training_alone():
    with Workers(2) as workers:
        alone = trained(workers)
    for ours in on_ranks(3, trained):
        same_bits(ours, alone)


def test_a_communicator_of_one_rank_sends_nothing():
    def part(i):
        return 0.5, {"w": np.full(2, float(i))}

    with Workers(1, SimpleNamespace(rank=0, size=1)) as workers:
        loss, dparams = value_and_grad(part, [1, 2], workers)
    assert loss == 1.0 and dparams["w"].tolist() == [3.0, 3.0]


ON_MPI = """
import sys
import numpy as np
from test_parallel import trained
from tinymae import tree
from tinymae.train.parallel import Workers, world

comm = world()
with Workers(1, comm) as workers:
    loss, params = trained(workers)
flat = np.concatenate([leaf.ravel() for _, leaf in tree.leaves(params)])
np.savez(f"{sys.argv[1]}/{comm.rank}_of_{comm.size}.npz", loss=loss, params=flat)
"""

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])))


@pytest.mark.skipif(not MPIEXEC or not find_spec("mpi4py"), reason="needs mpi4py and an MPI: pip install mpi4py mpich")
def test_training_on_mpi_is_training_alone(tmp_path):
    with Workers(1) as workers:
        loss, params = trained(workers)
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "PYTHONPATH": here, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    result = subprocess.run(
        [MPIEXEC, "-n", "2", sys.executable, "-m", "mpi4py", "-c", ON_MPI, tmp_path], env=environment, timeout=120,
        capture_output=True, text=True, check=False,
    )
    assert result.returncode == 0, result.stderr
    # 0_of_1.npz: this mpiexec belongs to another MPI library than mpi4py's
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_of_2.npz", "1_of_2.npz"]
    for path in tmp_path.iterdir():
        with np.load(path) as saved:
            assert saved["loss"] == loss
            np.testing.assert_array_equal(saved["params"], np.concatenate([leaf.ravel() for _, leaf in tree.leaves(params)]))


def test_mpi_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"cannot use MPI: .*mpi4py.* pip install mpi4py mpich"):
        world()
