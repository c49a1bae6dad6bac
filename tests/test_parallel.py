"""One gradient from many threads: the same to the last bit for any number of them, and nothing is left switched."""
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinymae import tree
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.parallel import Workers, micro_batches, value_and_grad

CONFIG = MAEConfig(
    img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=2, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
    decoder_num_heads=2,
)  # fmt: skip


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


@pytest.mark.parametrize(("size", "micro_batch"), [(0, 4), (-1, 4), (4, 0), (4, -1)])
def test_micro_batches_errors(size, micro_batch):
    with pytest.raises(ValueError, match=f"at least 1, got {size} and {micro_batch}"):
        micro_batches(size, micro_batch)
