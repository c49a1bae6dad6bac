"""
One gradient from many workers · 多个 worker，同一个梯度
========================================================

A batch is too large for the memory, or one core is too slow. So the batch is cut, and
several workers take the gradient of a part each. Do the parts add up to the gradient of
the batch? Exactly, and also with another number of workers tomorrow?

You will be able to add the gradients of parts with the right fractions, and to set up
threads and processes so that a training gives the same bits for any number of them.

Time: 20 minutes to read, 8 seconds to run. Needs: lessons 2 and 29.

Read beside: ``tinymae/train/parallel.py``; article A (MAE), 2、自注意力层.
"""

# %%
# The question, by hand
# ---------------------
# Three examples have the losses 1, 2, 6: the loss of the batch is their mean, 3. One
# worker has the first two and returns 1.5. Another has the third and returns 6. The
# mean of these is 3.75, which is wrong. Each counts with its fraction of the batch.

import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info, threadpool_limits

from tinymae import plot, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad
from tinymae.train.ranks import world

assert (1.5 + 6) / 2 == 3.75 and np.isclose(2 / 3 * 1.5 + 1 / 3 * 6, 3)

# %%
# Parts, each with its fraction
# -----------------------------
# A part of :math:`n_j` of the B examples is a small batch, and its loss is a mean over
# its own examples:
#
# .. math::
#    (1) \quad loss = \sum_j \frac{n_j}{B} \, loss_j, \qquad
#    (2) \quad dw = \sum_j \frac{n_j}{B} \, dw_j
#
# In the backward pass the fraction is the ``dloss`` that a part starts from. Here for a
# linear model, in parts of 1 (example by example) and in parts of 5, 5 and 2.


def forward(w, x, y):
    error = x @ w - y  # (B, 3)
    return float(np.mean(error**2)), (x, error)


def backward(dloss, cache):
    x, error = cache
    return dloss * 2 / error.size * x.T @ error


def whole_forward(w, x, y, size):
    return forward(w, x, y)[0], (w, x, y, size)


def parts_backward(dloss, cache):
    w, x, y, size = cache
    dw = np.zeros_like(w)
    for part in micro_batches(len(x), size):  # slices
        _, part_cache = forward(w, x[part], y[part])
        fraction = len(x[part]) / len(x)
        dw += backward(dloss * fraction, part_cache)  # (2)
    return dw


rng = np.random.default_rng(0)
x, y, w = rng.normal(size=(12, 5)), rng.normal(size=(12, 3)), rng.normal(size=(5, 3))
for size in (1, 5):
    rows = gradcheck(whole_forward, parts_backward, w, x=x, y=y, size=size)
    print(format_rows(f"parts of {size}", rows))
    assert all(row.ok for row in rows)

# %%
# Break it: a mean of means
# -------------------------
# "Each worker returns the gradient of its mean, and we take the mean of these." This is
# right as long as all parts are equally large. A smaller last part breaks it. So do
# sentences of different lengths: in a mean over tokens, parts count by their tokens.


def mean_of_means_backward(dloss, cache):
    w, x, y, size = cache
    gradients = []
    for part in micro_batches(len(x), size):
        _, part_cache = forward(w, x[part], y[part])
        gradients.append(backward(dloss, part_cache))
    return np.mean(gradients, axis=0)


for size, right in ((4, True), (5, False)):  # 4, 4, 4 and 5, 5, 2
    rows = gradcheck(whole_forward, mean_of_means_backward, w, x=x, y=y, size=size)
    print(format_rows(f"mean of means, {size}", rows))
    assert rows[0].ok == right

# %%
# Does the order matter?
# ----------------------
# In mathematics a sum has no order. In floating point it has, because each addition
# rounds. Gradients that are added as the workers finish differ from run to run.

assert (1e16 + 1.0) - 1e16 == 0 and (1e16 - 1e16) + 1.0 == 1
gradients = np.random.default_rng(1).normal(size=(16, 1000)).astype(np.float32)
in_order, reverse = sum(gradients), sum(gradients[::-1])  # from left to right, or back
print(f"the sums differ by at most {np.abs(in_order - reverse).max():.1e}")
assert 0 < np.abs(in_order - reverse).max() < 1e-5

# %%
# Random numbers of one's own
# ---------------------------
# Masking draws random numbers. If the threads share one generator, the first to come
# gets the first numbers, and no run can be repeated. If each makes one from the same
# seed, all parts get the same mask. ``rng.spawn`` gives each *part* its own generator.

first, second = [child.random(3) for child in np.random.default_rng(7).spawn(2)]
again, _ = [child.random(3) for child in np.random.default_rng(7).spawn(2)]
assert np.array_equal(first, again) and not np.array_equal(first, second)

# %%
# Threads that add in a fixed order
# ---------------------------------
# Python's threads run side by side where it counts: NumPy releases the interpreter lock
# in its products. ``value_and_grad`` gives the parts to the threads of ``Workers`` and
# adds the results in the order of the parts. The number of threads does not change how
# the batch is cut. So every bit is the same, here for a small MAE (lesson 29).

images = (load_digits().images[..., None] / 16 - 0.5).astype(np.float32)
size = {"img_size": 8, "patch_size": 2, "in_chans": 1, "mask_ratio": 0.5}
encoder = {"embed_dim": 96, "depth": 2, "num_heads": 4}
decoder = {"decoder_embed_dim": 48, "decoder_depth": 1, "decoder_num_heads": 2}
config = MAEConfig(**size, **encoder, **decoder)


def training(threads, ranks=None, turned=False):
    rng = np.random.default_rng(0)
    params = mae_init(config, rng)
    optimizer = AdamW(params)
    path = []

    def gradient(job):
        part, child = job  # 16 images of 16 patches, and a generator
        loss, cache = mae_forward(part, params, config, child.random((16, 16)))
        return loss / 4, mae_backward(1 / 4, cache)  # one of four equal parts

    with Workers(threads, ranks) as workers:
        for _ in range(12):
            parts = np.split(images[rng.integers(0, len(images), 64)], 4)
            jobs = list(zip(parts, rng.spawn(4), strict=True))
            if turned:
                jobs.reverse()
            _, grads = value_and_grad(gradient, jobs, workers)
            optimizer.step(params, grads, 1e-3)
            leaves = [leaf.ravel() for _, leaf in tree.leaves(params)]
            path.append(np.concatenate(leaves))
    return np.array(path)  # (12 steps, all parameters)


alone = training(1)
assert np.array_equal(training(2), alone) and np.array_equal(training(4), alone)
print(f"1, 2, 4 threads: the same {alone.shape[1]:,} parameters to the last bit")

# %%
# Equal runs, and runs that drift
# -------------------------------
# Added in reverse, the same parts give a run that drifts away: Adam divides by the size
# of the gradient, so where that is nearly 0, a rounding error becomes a part of a whole
# step. You can no longer show, by comparing bits, that new code changed nothing.

drift = np.abs(training(2, turned=True) - alone).max(axis=1)
print(f"difference: {drift[0]:.1e} after one step, {drift[-1]:.1e} after twelve")
assert 1e-5 < drift[-1] < 1e-2
caption = (
    "How to read it: how far the most different parameter is from the run on one "
    "thread if parts are added in reverse. In the same order the distance is exactly 0."
)
levels = {"learning rate: a step of Adam": 1e-3, "float32 rounds near 1": 1.2e-7}
axes = {"levels": levels, "yscale": "log", "ylim": (1e-8, 1e-2)}
figure = plot.curves({"in reverse": drift}, "step", "difference", caption, **axes)
print(plot.save(figure, Path("figures/workers_drift.png")))

# %%
# How many BLAS threads?
# ----------------------
# NumPy's products bring threads of their own (BLAS), as many as there are cores. Inside
# workers that is too many, so ``Workers`` sets BLAS to one thread. With more, a product
# may wait for threads that are not running: compare the times on a busy machine.

a, b = np.ones((256, 384), np.float32), np.ones((384, 384), np.float32)
with Workers(4) as workers:
    blas = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    assert all(lib["num_threads"] == 1 for lib in blas)
    for threads in (1, 4):
        with threadpool_limits(threads, "blas"):
            start = time.perf_counter()
            list(workers.map(lambda _: a @ b, range(16)))
            took = time.perf_counter() - start
        print(f"16 products, 4 workers, {threads} BLAS threads: {1e3 * took:.0f} ms")

# %%
# MPI in a few lines
# ------------------
# Processes (MPI calls them ranks) share no memory. They send messages and may run on
# many machines. If each adds its own parts, and then these sums are added, the bits
# depend on the number of ranks: (a + b) + (c + d) is not ((a + b) + c) + d. MPI's own
# Allreduce adds that way, and is fast. With ``exact=True`` the running sum passes from
# rank to rank, and the last one sends it to all. After ``pip install mpi4py mpich``
# start four ranks with ``mpiexec -n 4 python lessons/35_many_workers.py``.

sums = [sum(own) for own in np.split(gradients, 4)]  # 4 ranks, 4 parts each
assert not np.array_equal(sum(sums), in_order)
with world(exact=True) as ranks:
    assert np.array_equal(training(1, ranks), alone)
    print("ranks:", ranks.size, "with the bits of one worker")

# %%
# Exercises
# ---------
# Write your answer in the place of ``None`` and run the cell again.

# 1. A batch of 100 is cut into parts of 32. What is the fraction of the last part?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == (100 - 3 * 32) / 100, "three parts of 32, and the rest"

# 2. Sentences differ in length, and the loss is a mean over tokens. Each worker returns
#    (mean loss, tokens). A function (results) -> the mean loss of the batch.
answer_2 = None
if answer_2 is not None:
    assert np.isclose(answer_2([(1.5, 2), (6, 1)]), 3), "as by hand"

# %%
# In the articles
# ---------------
# - None of the five articles is about many workers.
# - Article A fills short sentences "用 0" (with 0). So two parts with as many sentences
#   differ in tokens, and the fraction is that of the tokens (exercise 2).
