"""
One gradient from many workers · 多个 worker，同一个梯度
========================================================

A batch is too large for the memory, or one core is too slow: so the batch is cut, and several workers take the gradient of a
piece each. Is the sum of their gradients the gradient of the batch? Exactly? And the same tomorrow, with another number of
workers?

Read beside: Vaswani et al. 2017, sections 5.1 and 5.2 (batches of 25,000 words, eight GPUs); ``tinymae/train/parallel.py``.
"""

# %%
# The question, as a loop
# -----------------------
# The loss of a batch is a mean over its :math:`B` examples, and the gradient of a mean is the mean of the gradients:
#
# .. math:: (1) \quad loss = \sum_i \frac{1}{B} \, loss_i, \qquad dw = \sum_i \frac{1}{B} \, dw_i

import io
import os
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from tinymae import plot, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.train.loop import Run, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad, world

figures = Path("figures")
try:
    comm = world()                                              # all processes that mpiexec has started: see "MPI" below
    rank, ranks = comm.rank, comm.size
except ImportError as error:
    print(f"This lesson runs in one process. {error}")
    comm, rank, ranks = None, 0, 1
if rank > 0:
    sys.stdout = io.StringIO()                                  # all ranks compute, one speaks

# %%
# Example by example, for a linear classifier:


def forward(w, x, labels):
    logits, linear = linear_forward(x, w)
    loss, entropy = cross_entropy_forward(logits, labels)
    return float(loss), (linear, entropy)


def backward(dloss, cache):
    linear, entropy = cache
    _, dw, _ = linear_backward(cross_entropy_backward(dloss, entropy), linear)
    return dw


rng = np.random.default_rng(0)
x, labels, w = rng.normal(size=(12, 5)), rng.integers(0, 3, 12), rng.normal(size=(5, 3))
loss, cache = forward(w, x, labels)
dw = backward(1.0, cache)
loop_loss, loop_dw = 0.0, np.zeros_like(w)
for i in range(12):
    one, cache = forward(w, x[i : i + 1], labels[i : i + 1])
    loop_loss += one / 12
    loop_dw += backward(1 / 12, cache)
np.testing.assert_allclose(loop_loss, loss, rtol=1e-12)
np.testing.assert_allclose(loop_dw, dw, rtol=1e-12)

# %%
# Parts, each with its share
# --------------------------
# One example at a time is slow; a part of some examples is a small batch of its own. Its loss is a mean over its :math:`n_j`
# examples, so it counts with its share of the batch, and nothing new has to be derived:
#
# .. math:: (2) \quad loss = \sum_j \frac{n_j}{B} \, loss_j, \qquad dw = \sum_j \frac{n_j}{B} \, dw_j
#
# In a backward the share is the ``dloss`` that it starts from. The check, with parts of 5, 5 and 2 examples:


def cut_forward(w, x, labels, size):
    return forward(w, x, labels)[0], (w, x, labels, size)       # the loss of the whole batch


def cut_backward(dloss, cache):
    w, x, labels, size = cache
    dw = np.zeros_like(w)
    for piece in micro_batches(len(x), size):
        share = len(x[piece]) / len(x)
        _, part = forward(w, x[piece], labels[piece])
        dw += backward(dloss * share, part)                     # (2)
    return dw


rows = gradcheck(cut_forward, cut_backward, w, x=x, labels=labels, size=5)
print(format_rows("parts of 5, 5, 2", rows))
assert all(row.ok for row in rows)

# %%
# Break it: a mean of means
# -------------------------
# "Each worker returns the gradient of its mean, and we take the mean of these": right as long as all parts are equal, and that
# is how it is tested. A shorter last part breaks it, and so do sentences with different numbers of words: a word in a short
# part counts more than one in a long part. Large libraries had this mistake in their gradient accumulation until 2024.


def mean_of_means_backward(dloss, cache):
    w, x, labels, size = cache
    pieces = micro_batches(len(x), size)
    return sum(backward(dloss / len(pieces), forward(w, x[piece], labels[piece])[1]) for piece in pieces)


blind = gradcheck(cut_forward, mean_of_means_backward, w, x=x, labels=labels, size=4)
seen = gradcheck(cut_forward, mean_of_means_backward, w, x=x, labels=labels, size=5)
print(format_rows("mean of means: 4, 4, 4", blind), format_rows("mean of means: 5, 5, 2", seen), sep="\n")
assert blind[0].ok and not seen[0].ok

# %%
# Does the order matter?
# ----------------------
# In mathematics a sum has no order. In floating point it has, because each addition rounds. So workers that add their gradients
# when they happen to finish give other last digits in every run.

parts = np.random.default_rng(1).normal(size=(16, 1000)).astype(np.float32)
in_order = sum(parts)                                           # from left to right
others = [sum(parts[np.random.default_rng(seed).permutation(16)]) for seed in range(100)]
differ = sum(not np.array_equal(in_order, other) for other in others)
print(f"16 parts in float32, added in 100 other orders: {differ} times other bits, at most by",
      f"{max(np.abs(in_order - other).max() for other in others):.1e}")
assert differ == 100 and all(np.allclose(in_order, other, atol=1e-5) for other in others)
print("and three numbers are enough:", (1e16 + 1.0) - 1e16, "and", (1e16 - 1e16) + 1.0)

# %%
# Threads that add in a fixed order
# ---------------------------------
# Python threads run side by side where it counts: NumPy lets go of the interpreter lock in its products. ``value_and_grad``
# gives the parts to the threads of ``Workers`` and adds the results in the order of the parts, whoever finishes first. And the
# parts are cut by the batch, never by the number of threads. Then every bit is the same for 1, 2 or 4 threads.


def part(piece):
    share = len(x[piece]) / len(x)
    part_loss, cache = forward(w, x[piece], labels[piece])
    return share * part_loss, {"w": backward(share, cache)}


reference = cut_backward(1.0, (w, x, labels, 5))
for threads in (1, 2, 4):
    with Workers(threads) as workers:
        threads_loss, dparams = value_and_grad(part, micro_batches(len(x), 5), workers)
    np.testing.assert_allclose(threads_loss, loss, rtol=1e-12)
    assert np.array_equal(dparams["w"], reference)              # to the last bit: the same parts in the same order

# %%
# Random numbers of one's own
# ---------------------------
# Dropout and masking draw numbers. If the threads share one generator, the first to come gets the first numbers, and no run can
# be repeated. If each makes one from the same seed, all parts get the same mask. ``rng.spawn`` gives each *part* a generator
# of its own, independent of the others and of the number of threads.

first, second = (child.random(3) for child in np.random.default_rng(7).spawn(2))
again, _ = (child.random(3) for child in np.random.default_rng(7).spawn(2))
same_seed = [np.random.default_rng(7).random(3) for _ in range(2)]
assert np.array_equal(first, again) and not np.array_equal(first, second) and np.array_equal(*same_seed)

# %%
# A real model: a masked autoencoder for scikit-learn's digits. ``add(part, jobs)`` says who works and how the parts are added;
# every job is a piece of the batch with a generator of its own, for the mask.

images = (load_digits().images[..., None] / 16 - 0.5).astype(np.float32)
config = MAEConfig(
    img_size=8, patch_size=2, in_chans=1, embed_dim=96, depth=2, num_heads=4, decoder_embed_dim=48, decoder_depth=1,
    decoder_num_heads=2, mask_ratio=0.5,
)


def digits_gradient(add, batch=64, size=16):
    def gradient(params, rng):
        chosen = images[rng.integers(0, len(images), batch)]
        pieces = micro_batches(batch, size)

        def part(job):
            child, piece = job
            loss, cache = mae_forward(chosen[piece], params, config, child.random((len(chosen[piece]), 16)))       # 16 patches
            share = len(chosen[piece]) / batch
            return share * loss, mae_backward(share, cache)

        return add(part, list(zip(rng.spawn(len(pieces)), pieces, strict=True)))

    return gradient


# %%
# A training of twelve steps, which notes where it went.


def training(add):
    """The losses of a training, and all parameters at the start of each step: (steps, parameters)."""
    rng, path = np.random.default_rng(0), []
    params = mae_init(config, rng)
    gradient = digits_gradient(add)

    def gradient_and_note(params, rng):
        path.append(np.concatenate([leaf.ravel() for _, leaf in tree.leaves(params)]))
        return gradient(params, rng)

    run = Run(params, AdamW(params), rng)
    train(run, gradient_and_note, lambda step, progress: 1e-3, batch=64, steps=12, bar=False)
    return np.array(run.losses), np.array(path)


# %%
# Equal runs, and runs that drift
# -------------------------------
# Trained with 1, 2 and 4 threads all losses are equal, and every parameter at every step:


def threaded(threads):
    with Workers(threads) as workers:
        return training(lambda part, jobs: value_and_grad(part, jobs, workers))


alone_losses, alone = threaded(1)
for threads in (2, 4):
    losses, path = threaded(threads)
    assert np.array_equal(losses, alone_losses) and np.array_equal(path, alone)
print(f"1, 2, 4 threads: the same {alone.shape[1]:,} parameters to the last bit; loss {losses[0]:.3f} -> {losses[-1]:.3f}")

# %%
# Now the sums in the order in which workers happen to finish (here: a random order). Two runs soon part: Adam divides by the
# size of the gradient, so where a gradient is nearly 0 a rounding becomes a share of a whole step. The loss hardly notices. But
# no run can be repeated, and nobody can prove, by comparing bits, that a change in the code changed nothing.


def as_they_finish(seed):
    order = np.random.default_rng(seed)

    def add(part, jobs):
        results = [part(job) for job in jobs]
        results = [results[i] for i in order.permutation(len(results))]
        total = results[0][1]
        for _, dparams in results[1:]:
            tree.add_to(total, dparams)
        return float(sum(loss for loss, _ in results)), total

    with threadpool_limits(1, "blas"):
        return training(add)


drift = {}
for seed in (1, 2):
    losses, path = as_they_finish(seed)
    np.testing.assert_allclose(losses, alone_losses, rtol=1e-3)                             # hardly notices
    drift[f"added as they finish, run {seed}"] = np.abs(path - alone).max(axis=1)
    assert 1e-5 < drift[f"added as they finish, run {seed}"][-1] < 1e-2
if rank == 0:
    print(plot.save(plot.curves(
        drift, "step", "largest difference of a parameter", "How to read it: how far a training is from the same training on "
        "one worker. In a fixed order the difference is exactly 0 at every step, for 1, 2 and 4 workers (a logarithmic axis "
        "has no place for it). In another order it soon is far above what a rounding is, and a share of a whole step.",
        levels={"learning rate: a step of Adam": 1e-3, "float32 rounds numbers near 1": np.finfo(np.float32).eps},
        yscale="log", ylim=(1e-9, 1e-2)), figures / "workers_drift.png"))

# %%
# How many BLAS threads?
# ----------------------
# NumPy's matrix products bring threads of their own (BLAS), as many as there are cores. Inside workers that is too many: 4
# workers that ask for 4 BLAS threads each want 16 threads of 4 cores. ``Workers`` sets BLAS to one thread in each, with
# threadpoolctl. The same 8 products, measured here. On an idle machine too many BLAS threads may cost little. On a busy one
# (another training, other users) a product waits for threads that are not running, and may take many times as long.


def products(threads, blas):
    a, w = np.ones((256, 384), np.float32), np.ones((384, 384), np.float32)
    taken = []
    with Workers(threads) as workers, threadpool_limits(blas, "blas"):
        for _ in range(2):                                      # in the first round the threads start
            start = time.perf_counter()
            list(workers.map(lambda _: a @ w, range(8)))
            taken.append(1e3 * (time.perf_counter() - start))
    return min(taken)


several = min(max(2, os.cpu_count()), 4)
if ranks == 1:                                                  # several ranks would measure each other
    for threads, blas in ((1, 1), (1, several), (several, 1), (several, several)):
        print(f"workers: {threads}, BLAS threads in each: {blas}: {products(threads, blas):7.1f} ms")

# %%
# And the whole gradient of 256 digits, by the number of workers and the size of the parts. Between two NumPy operations a
# thread needs the interpreter lock, and one at a time holds it. So parts have to be large: most time is then inside NumPy.


def milliseconds(threads, size):
    params = mae_init(config, np.random.default_rng(0))
    with Workers(threads) as workers:
        gradient = digits_gradient(lambda part, jobs: value_and_grad(part, jobs, workers), batch=256, size=size)
        start = time.perf_counter()
        gradient(params, np.random.default_rng(1))
        return 1e3 * (time.perf_counter() - start)


if ranks == 1:
    counts, curves = [1, 2, 4], {}
    for size in (16, 64):
        taken = np.min([[milliseconds(threads, size) for threads in counts] for _ in range(5)], axis=0)   # the fastest of five
        curves[f"parts of {size}"] = counts, taken
        print(f"parts of {size}; workers:", *(f"{n}: {ms:.1f} ms" for n, ms in zip(counts, taken, strict=True)))
    curves["parts of 64, one worker's time divided"] = counts, [taken[0] / n for n in counts]
    print(plot.save(plot.curves(
        curves, "workers (threads), each with one BLAS thread", "milliseconds for one gradient",
        f"How to read it: measured on {os.cpu_count()} cores; lower is better. The green line divides the work perfectly; "
        "large parts can come near it, up to the number of cores that nobody else is using. More workers bring nothing.",
        ylim=(0, 1.1 * max(max(taken) for _, taken in curves.values())), markers=True), figures / "workers_time.png"))

# %%
# MPI: the same sum over processes and machines
# ---------------------------------------------
# Threads share one memory. Processes (MPI calls them ranks) do not: they send messages, and may run on many machines. How
# should they add? If each adds its own parts first, and these sums are added then, the bits differ for each number of ranks: in
# floating point (a + b) + (c + d) is not ((a + b) + c) + d. So the running sum itself goes from rank to rank:

by_rank = np.split(parts, 4)                                    # 4 ranks, 4 parts each
running = 0
for own in by_rank:                                             # rank 0, then rank 1, ... each goes on from what it got
    for gradient in own:
        running = running + gradient
assert np.array_equal(running, in_order)                        # one worker's bits
assert not np.array_equal(sum(sum(own) for own in by_rank), in_order)

# %%
# That is ``Workers(threads, comm)``. All ranks work on their parts at the same time; then the sum passes through them, and the
# last one sends the result to all. They start from the same parameters, get the same gradient, take the same step, and so never
# have to send parameters. Without ``mpiexec`` this cell has one rank. Try:
#
# .. code-block:: text
#
#    pip install mpi4py mpich
#    mpiexec -n 4 python -m mpi4py lessons/20_many_workers.py
#
# With ``-m mpi4py`` an error on one rank ends all; without it the others wait for ever. In a training of your own all ranks do
# the same number of ``steps``. With ``minutes`` each would follow its own clock: other learning rates, so other parameters, and
# who stops first leaves the others waiting. Rank 0 alone prints and saves.

if comm is not None:
    comm.barrier()                                              # all start at the same time
start = time.perf_counter()
with Workers(1, comm) as workers:
    losses, path = training(lambda part, jobs: value_and_grad(part, jobs, workers))
took = (time.perf_counter() - start) / len(losses)
print(f"ranks: {ranks}. {1e3 * took:.1f} ms a step; the last loss {losses[-1]:.6f}, as with one worker")
assert np.array_equal(losses, alone_losses) and np.array_equal(path, alone)

# %%
# Exercises
# ---------
# 1. A batch of 100 is cut into parts of 32. What is the share of the last part?

answer_1 = None
if answer_1 is not None:
    last = micro_batches(100, 32)[-1]
    assert answer_1 == (last.stop - last.start) / 100, "three parts of 32, and what is left"

# %%
# 2. Sentences have different numbers of words, and the loss is a mean over words. Each worker returns ``(mean loss, words)``.
#    Write ``answer_2(results)``, the mean loss of the batch.

answer_2 = None
if answer_2 is not None:
    word_losses = np.random.default_rng(2).random(30)
    results = [(float(word_losses[a:b].mean()), b - a) for a, b in ((0, 17), (17, 20), (20, 30))]
    assert np.isclose(answer_2(results), word_losses.mean()), "the share of a worker is its share of the words"

# %%
# 3. The loss is now a *sum* of squares, ``sum((x @ w - y) ** 2)``, not a mean. Write its backward from parts of 5, 5 and 2:
#    ``answer_3(dloss, cache)``. Which share does a part get?


def squares_forward(w, x, y):
    return float(np.sum((x @ w - y) ** 2)), (w, x, y, micro_batches(len(x), 5))


answer_3 = None
if answer_3 is not None:
    rows = gradcheck(squares_forward, answer_3, w, x=x, y=np.random.default_rng(3).normal(size=(12, 3)))
    assert all(row.ok for row in rows), "a sum of sums needs no share\n" + format_rows("", rows)

# %%
# In the articles
# ---------------
# - No section of the five articles is about many workers. *Article E, summary*, says "parallel" of the words of one sentence
#   (lesson 14); this lesson is about the sentences of a batch.
# - *Article A, part 2*: mini-batches are padded with 0. So two parts with as many sentences have different numbers of words,
#   and the share is that of the words ("Break it", exercise 2).
# - *Vaswani et al., section 5.1*: a batch is about 25,000 words on each side, not a number of sentences; eight GPUs share it.
# - *He et al. 2021 (MAE), appendix A*: batches of 4,096 pictures, and a learning rate in proportion to the batch. With a mean
#   as the loss the gradient of a larger batch is no larger, only less noisy, so the rate has to be raised by hand.
