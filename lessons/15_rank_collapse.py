"""
Rank collapse · 秩坍缩
======================

Article E ends with a question: what can go wrong when layers of self-attention with
positional encoding are stacked? One answer: after five layers of attention alone, all
tokens of a sentence are the same vector, to 14 digits.

You will be able to measure how different tokens are, to say why attention makes them
alike so fast, and which part of a layer prevents it.

Time: 20 minutes to read, 2 seconds to run. Needs: lessons 8 and 14.

Read beside: Dong et al. 2021; article E (67 自注意力), 练习 1; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), 3、残差链接和层归一化.
"""

# %%
# Averages of averages, by hand
# -----------------------------
# Attention replaces each token by a weighted average. Take three tokens of one number
# each: 0, 4 and 8. Each takes half of itself and a quarter of each of the others: they
# become 3, 4 and 5, then 3.75, 4 and 4.25. Each layer divides the differences by four.

from pathlib import Path

import numpy as np

from tinymae import blocks, init, plot, tree
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.positional import sinusoidal_interleaved

figures = Path("figures")
rng = np.random.default_rng(0)

A = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])  # (T, T)
tokens = np.array([[0.0], [4.0], [8.0]])                        # (T, D)
averaged = np.zeros_like(tokens)
for t in range(3):
    for s in range(3):
        averaged[t] += A[t, s] * tokens[s]
np.testing.assert_array_equal(averaged, A @ tokens)
assert averaged.ravel().tolist() == [3, 4, 5]
assert (A @ averaged).ravel().tolist() == [3.75, 4, 4.25]

# %%
# How different are the tokens?
# -----------------------------
# Subtract the mean token from each, and divide the norm of the rest by the norm of x.
# At 0 all rows are equal: a matrix of rank 1, hence the name of this lesson.


def differences(x):
    rest = x - x.mean(axis=-2, keepdims=True)                   # (B, T, D)
    return np.linalg.norm(rest) / np.linalg.norm(x)


D, H, F, DEPTH = 32, 4, 64, 12
positions = sinusoidal_interleaved(10, D)                       # (T, D)
ids = rng.integers(0, 50, (200, 10))                            # 200 sentences
x = rng.normal(size=(50, D))[ids] + positions                   # (B, T, D)
equal = np.repeat(x[:, :1], 10, axis=1)
assert differences(x) > 0.5 and differences(equal) < 1e-14
assert np.linalg.matrix_rank(x[0]) == 10 and np.linalg.matrix_rank(equal[0]) == 1

# %%
# Attention alone: each layer cubes the differences
# -------------------------------------------------
# A fixed A divides the differences by a constant. Attention is worse: its weights
# depend on x. Let m be the mean token and r_t the rest of token t. With W = W_q W_k^T,
# the score of query t and key s is, but for a constant factor,
#
# .. math::
#
#    (m + r_t)^T W (m + r_s) = m^T W m + r_t^T W m + m^T W r_s + r_t^T W r_s \qquad (1)
#
# The first two terms are equal for all keys, so the softmax does not depend on them.
# The third is equal for all queries. Only the last is different for each query, and it
# has two factors r, so it is O(r^2): tiny if r is small.
#
# .. math::
#
#    A_{ts} = a_s + O(r^2) \qquad (2) \qquad
#    \sum_s A_{ts} r_s = \sum_s a_s r_s + O(r^3) \qquad (3)
#
# The sum over a_s is the same for every token. What differs after the layer is O(r^3):
# 0.1 becomes 0.001, then 1e-9 (Dong et al. 2021: doubly exponential).

layers = [init.encoder_layer(D, H, F, rng, dtype=np.float64) for _ in range(DEPTH)]


def attend(x, p, mask=None):
    return blocks.multi_head_attention_forward(x, x, p["attn"], H, mask)[0]


mean, noise, ratios = rng.normal(size=(1, 1, D)), rng.normal(size=(1, 10, D)), []
for size in (0.1, 0.03, 0.01):
    before = mean + size * noise
    after = attend(before, layers[0])
    r = np.linalg.norm(before - before.mean(axis=1))
    r_after = np.linalg.norm(after - after.mean(axis=1))
    print(f"r {r:.3f}, after the layer {r_after:.1e}, over r^3 {r_after / r**3:.2e}")
    ratios.append(r_after / r**3)
assert max(ratios) / min(ratios) < 1.2                          # (3)

# %%
# What slows it, what prevents it
# -------------------------------
# With fixed weights the fall is a straight line in the figure (exponential), with
# attention it is ever steeper. A feed forward slows it if its weights are large and
# stretch differences (Dong et al.: the Lipschitz constant). The residual connection
# prevents the collapse: it passes x on. In post-norm the differences still shrink
# slowly, in pre-norm less.


def feed_forward(x, p, factor):
    large = tree.map(lambda leaf: factor * leaf, p["ffn"])
    return blocks.feed_forward_forward(x, large)[0]


def post_norm(x, p):
    return blocks.encoder_layer_forward(x, p, H, norm_first=False)[0]


def pre_norm(x, p):
    return blocks.encoder_layer_forward(x, p, H, norm_first=True)[0]


_, cache = blocks.multi_head_attention_forward(x, x, layers[0]["attn"], H)
fixed = blocks.attention_weights(cache)[:, 0]                   # (B, T, T), one head
stacks = {
    "fixed weights": lambda x, p: fixed @ x,
    "attention": attend,
    "attention, feed forward": lambda x, p: feed_forward(attend(x, p), p, 1),
    "attention, large feed forward": lambda x, p: feed_forward(attend(x, p), p, 3),
    "attention, residual": lambda x, p: x + attend(x, p),
    "post-norm encoder": post_norm,
    "pre-norm encoder": pre_norm,
}
curves, tops = {}, {}
for name, layer in stacks.items():
    y, values = x, [differences(x)]
    for p in layers:
        y = layer(y, p)
        values.append(differences(y))
    curves[name], tops[name] = (np.arange(DEPTH + 1), np.array(values)), y
    print(f"{name:30}", " ".join(f"{value:.0e}" for value in values[1::2]))
after = {name: value for name, (_, value) in curves.items()}
assert after["attention"][5] < 1e-14 and after["fixed weights"][12] > 1e-6
large = after["attention, large feed forward"]
assert large[5] > 1e-3 and large[12] < 1e-14 and after["attention, residual"][12] > 0.01
assert 0.005 < after["post-norm encoder"][12] < 0.1 < after["pre-norm encoder"][12]

caption = "How to read it: how different the tokens are; at 1e-16 they are equal."
figure = plot.curves(curves, "layer", "differences", caption, yscale="log")
print(plot.save(figure, figures / "rank_collapse.png"))

# %%
# The positions fade, too
# -----------------------
# Article E's stack adds the positions once, at the bottom. The mean over all sentences
# at each position tells the positions apart. They fade with the differences.


def of_position(x):
    common = x.mean(axis=0)                                     # (T, D)
    rest = common - common.mean(axis=0)
    return np.linalg.norm(rest) * np.sqrt(len(x)) / np.linalg.norm(x)


print(f"fraction that tells the position: in x {of_position(x):.2f}, after 12 layers")
for name in ("attention", "post-norm encoder", "pre-norm encoder"):
    print(f"  {name} {of_position(tops[name]):.0e}")
assert of_position(tops["attention"]) < 1e-10
assert 0.03 < of_position(tops["pre-norm encoder"]) < of_position(x)

# %%
# The backward pass: no gradient for queries and keys
# ---------------------------------------------------
# With equal tokens, all values are equal, and so is dp, the gradient of the weights p
# of one query. The backward of the softmax (lesson 8) is then
#
# .. math::
#
#    dscores = p \, (dp - \sum p \, dp) = 0 \qquad (4)
#
# W_q and W_k receive no gradient, so training cannot undo the collapse.

p = layers[0]["attn"]
_, cache = blocks.multi_head_attention_forward(equal[:1], equal[:1], p, H)
_, _, dp = blocks.multi_head_attention_backward(rng.normal(size=(1, 10, D)), cache)
gradients = {name: np.linalg.norm(dp[name]["w"]) for name in "qkv"}
print("gradients of W:", {name: f"{norm:.0e}" for name, norm in gradients.items()})
assert gradients["q"] < 1e-12 and gradients["k"] < 1e-12 and gradients["v"] > 1    # (4)

# %%
# Break it: an encoder without residual connections
# -------------------------------------------------
# Shapes fit, and every row has mean 0 and variance 1. But predict from the output of
# each position, with the best linear map (least squares), which of the 50 tokens was
# its input.


def no_residual(x, p):
    x = layernorm_forward(attend(x, p), **p["ln1"])[0]
    return layernorm_forward(blocks.feed_forward_forward(x, p["ffn"])[0], **p["ln2"])[0]


def recognised(y):
    features = np.hstack([y.reshape(-1, D), np.ones((ids.size, 1))])    # (B T, D + 1)
    weights = np.linalg.lstsq(features, np.eye(50)[ids.ravel()], rcond=1e-8)[0]
    return ((features @ weights).argmax(axis=1) == ids.ravel()).mean()


right, broken = x, x
for p in layers[:6]:
    right = post_norm(right, p)
    broken = no_residual(broken, p)
print(f"tokens recognised: in x {recognised(x):.0%}, with residual connections "
      f"{recognised(right):.0%}, without {recognised(broken):.0%}")
assert np.allclose(broken.var(axis=-1), 1, atol=0.01)           # blind
assert recognised(right) > 0.5 and recognised(broken) < 0.2

# %%
# Exercises
# ---------
# 1. Each layer turns r into r^3. The first r is 0.1. After how many layers is r <
#    1e-15?
#
# 2. Find a boolean mask, broadcastable to (B, H, 10, 10), with which tokens stay
#    different through 12 layers of attention alone. Is a causal mask enough? What do
#    you give up?

answer_1 = None
if answer_1 is not None:
    assert 0.1 ** (3**answer_1) < 1e-15 < 0.1 ** (3 ** (answer_1 - 1)), "r, r^3, r^9"

answer_2 = None
if answer_2 is not None:
    y = x
    for p in layers:
        y = attend(y, p, answer_2)
    assert differences(y) > 0.1, f"differences after 12 layers: {differences(y):.0e}"

# %%
# In the articles
# ---------------
# - **E, 练习 1.** "可能会存在什么问题": the tokens become equal, their positions fade, and W_q and
#   W_k receive no gradient. The residual connections, which E leaves out, prevent it.
# - **A, 3、残差链接和层归一化.** "为了防止梯度消失" is not the only use of a residual connection.
