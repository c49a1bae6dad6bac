"""One gradient from many threads and ranks: the same to the last bit for any number of them, and nothing is left switched."""
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinymae import tree
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.train import parallel
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

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


def same_bits(ours, reference):
    assert ours[0] == reference[0]
    for (path, a), (_, b) in zip(tree.leaves(ours[1]), tree.leaves(reference[1]), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=path)


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


def product(meet=None):
    """(BLAS threads that the opener and the parts see, loss, dparams) of matrix products in Workers of their own."""
    seen = []

    def part(i):
        if meet is not None:
            meet.wait()
        seen.extend(blas_threads())
        x = np.random.default_rng(i).normal(size=(200, 300)).astype(np.float32)
        return 1.0, {"w": x.T @ x}

    with Workers(2) as workers:
        seen.extend(blas_threads())
        loss, dparams = value_and_grad(part, range(4), workers)
        seen.extend(blas_threads())
    return set(seen), loss, dparams


def in_thread(function):
    """The result of function() in a Python thread of its own, which has ended."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=60)


def test_blas_has_one_thread_inside_and_the_old_number_afterwards(three_blas_threads):
    with Workers(2) as workers:
        assert set(blas_threads()) == {1}
        assert all(set(seen) == {1} for seen in workers.map(lambda _: blas_threads(), range(4)))
    assert set(blas_threads()) == {3}


@pytest.mark.parametrize("first", ["main", "other"])            # whoever sets BLAS first owns it, as threadpoolctl sees it
def test_every_python_thread_gives_the_same_bits(three_blas_threads, first):
    functions = [product, lambda: in_thread(product)]
    results = []
    for function in functions if first == "main" else reversed(functions):
        results.append(function())
        assert set(blas_threads()) == {3}
    for seen, *result in results:
        assert seen == {1}
        same_bits(result, results[0][1:])


def test_two_at_once_give_the_same_bits(three_blas_threads):
    _, *alone = product()
    meet = threading.Barrier(4, timeout=30)                     # the two threads of both are in a part at the same time
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(product, [meet] * 2))
    for seen, *result in results:
        assert seen == {1}
        same_bits(result, alone)
    assert set(blas_threads()) == {3}


def test_one_inside_the_other_gives_the_same_bits(three_blas_threads):
    _, *alone = product()
    with Workers(2) as workers:
        for seen, *result in (product(), in_thread(product), *workers.map(lambda _: product(), range(2))):
            assert seen == {1}
            same_bits(result, alone)
            assert set(blas_threads()) == {1}                   # the inner one is closed, the outer one is not
    assert set(blas_threads()) == {3}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_to_close_restores_blas(three_blas_threads, order):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        threads, both = (one, other), (Workers(1), Workers(2))
        for thread, workers in zip(threads, both, strict=True):
            thread.submit(workers.__enter__).result(timeout=30)
            assert set(blas_threads()) == {1}
        for i, left in zip(order, (1, 3), strict=True):
            threads[i].submit(both[i].__exit__).result(timeout=30)
            assert set(blas_threads()) == {left}


def test_blas_is_restored_where_the_thread_that_opened_has_ended(three_blas_threads):
    with Workers(1) as workers:
        left = in_thread(Workers(1).__enter__)
        assert set(workers.map(lambda _: max(blas_threads()), range(2))) == {1}
    assert set(blas_threads()) == {1}
    left.__exit__()
    assert set(blas_threads()) == {3}


class Library:
    """A BLAS library as threadpoolctl shows it, with one number of threads for the process, or with one for each thread."""

    internal_api = "openblas"

    def __init__(self, filepath, threading_layer):
        self.filepath, self.threading_layer, self.default = filepath, threading_layer, 3
        self.state = threading.local() if threading_layer == "openmp" else SimpleNamespace()

    @property
    def num_threads(self):
        return getattr(self.state, "threads", self.default)

    def set_num_threads(self, threads):
        self.state.threads = threads


@pytest.fixture
def libraries(monkeypatch):
    """A list for the BLAS libraries that threadpoolctl finds."""
    found = []
    controller = SimpleNamespace(select=lambda user_api: SimpleNamespace(lib_controllers=list(found)))
    monkeypatch.setattr(parallel, "ThreadpoolController", lambda: controller)
    return found


def test_blas_with_a_number_for_each_thread(libraries):
    library = Library("libopenblas", "openmp")
    libraries.append(library)

    def numbers():
        with Workers(2) as workers:
            inside = {library.num_threads, *workers.map(lambda _: library.num_threads, range(4))}
        return inside, library.num_threads

    library.set_num_threads(4)
    with Workers(2) as workers:
        assert {library.num_threads, *workers.map(lambda _: library.num_threads, range(4))} == {1}
        assert in_thread(lambda: library.num_threads) == 3      # a thread that has nothing to do with it keeps its number
        assert in_thread(numbers) == ({1}, 3)
        assert numbers() == ({1}, 1)
    assert library.num_threads == 4


@pytest.mark.parametrize("layer", ["pthreads", "openmp"])
def test_a_library_that_is_loaded_later(libraries, layer):
    early, late = Library("numpy", "pthreads"), Library("scipy", layer)
    libraries.append(early)
    with Workers(1):
        libraries.append(late)
        assert (early.num_threads, late.num_threads) == (1, 3)
        with Workers(1) as workers:
            assert list(workers.map(lambda _: (early.num_threads, late.num_threads), range(1))) == [(1, 1)]
        assert early.num_threads == 1
    assert (early.num_threads, late.num_threads) == (3, 3)


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


def test_an_exception_in_another_thread_leaves_nothing_switched(three_blas_threads):
    def fails():
        with Workers(2) as workers:
            list(workers.map(lambda part: 1 / part, [1, 0]))

    with Workers(1):
        with pytest.raises(ZeroDivisionError):
            in_thread(fails)
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {3}


def test_workers_can_be_opened_again(three_blas_threads):
    workers = Workers(2)
    for _ in range(2):
        with workers:
            assert list(workers.map(abs, [-1, 2])) == [1, 2]
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {3}


def test_workers_are_opened_once_at_a_time(three_blas_threads):
    with Workers(2) as workers:
        with pytest.raises(RuntimeError, match="open already: make new ones for a `with` inside of theirs"), workers:
            pass
        assert list(workers.map(abs, [-1, 2])) == [1, 2]
    assert set(blas_threads()) == {3}


def test_closed_workers_do_not_work():
    workers = Workers(2)
    with pytest.raises(RuntimeError, match="closed: use them inside `with Workers"):
        workers.map(abs, [1])
    with workers:
        pass
    with pytest.raises(RuntimeError, match="closed: use them inside `with Workers"):
        workers.map(abs, [1])


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
