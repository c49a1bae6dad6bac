# %% [markdown]
# # Masks
# Attention looks at everything unless it is told not to. Two things must not be seen: padding, which is no word, and, in the
# decoder, the words that are still to be said. Vaswani et al. 2017, section 3.2.3; article C, section 5.1; article A, part 2.

# %%
from pathlib import Path

import numpy as np

from tinymae import plot, plot_text
from tinymae.invariants import assert_causal
from tinymae.masks import causal_mask, padding_mask, shift_right
from tinymae.models.transformer import TransformerConfig, decode, encode, to_vocabulary, transformer_init
from tinymae.ops.attention import scaled_dot_product_attention_forward
from tinymae.ops.softmax import softmax_forward

figures = Path("figures")

# %% [markdown]
# ## One rule: True may be looked at
# A mask is boolean and broadcasts to the scores (B, H, Tq, Tk). It stands on the axis of the keys: a padded word is not looked
# at. (That it looks itself does no harm: nobody reads its answer.)

# %%
src = np.array([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])              # 0 is <pad>
print("padding", padding_mask(src).shape, padding_mask(src)[:, 0, 0].astype(int), sep="\n")
print("causal", causal_mask(5).shape, causal_mask(5)[0, 0].astype(int), sep="\n")


# %% [markdown]
# ## As a loop
# The softmax runs over the words that may be seen, and the others get exactly 0.


# %%
def masked_softmax(scores, mask):
    weights = np.zeros_like(scores)
    for row in range(len(scores)):
        seen = [key for key in range(scores.shape[1]) if mask[row, key]]
        total = sum(np.exp(scores[row, key]) for key in seen)
        for key in seen:
            weights[row, key] = np.exp(scores[row, key]) / total
    return weights


rng = np.random.default_rng(0)
scores = rng.normal(size=(5, 5))
causal = causal_mask(5)[0, 0]
np.testing.assert_allclose(masked_softmax(scores, causal), softmax_forward(scores, causal)[0], atol=1e-15)

# %% [markdown]
# ## Before and after the softmax
# Article C's picture: five words, each may look at itself and those before it.

# %%
words = ["我", "有", "一", "只", "猫"]
print(plot.save(plot_text.masks(scores, causal, words, words), figures / "mask_causal.png"))
padded = ["我", "有", "猫", "<pad>", "<pad>"]
mask = np.broadcast_to(padding_mask(src)[1, 0], (5, 5))
print(plot.save(plot_text.masks(scores, mask, padded, padded), figures / "mask_padding.png"))

# %% [markdown]
# ## Break it: multiply by the mask
# A score of 0 is not "do not look": e^0 = 1, so the hidden word gets weight, often more than a seen one.

# %%
broken = softmax_forward(scores * causal)[0]
print(f"weight on words that must not be seen: {broken[~causal].sum():.2f} of 5 rows")
assert broken[~causal].min() > 0 and softmax_forward(scores, causal)[0][~causal].max() == 0

# %% [markdown]
# ## A row that may see nothing
# With minus infinity everywhere a plain softmax gives NaN. Here such a row looks at nothing: its output is 0, and its gradient.

# %%
q, k, v = (rng.normal(size=(1, 1, 5, 4)) for _ in range(3))
nothing = np.ones((1, 1, 5, 5), bool)
nothing[0, 0, 2] = False
z, _ = scaled_dot_product_attention_forward(q, k, v, nothing)
assert not z[0, 0, 2].any() and np.isfinite(z).all()

# %% [markdown]
# ## Does the future leak?
# The answer to "validation is too good". Change a later word: no earlier output may change.

# %%
config = TransformerConfig(12, 12, d_model=16, encoder_layers=1, decoder_layers=2, heads=2, d_ff=32)
params = transformer_init(config, rng, np.float64)


def say(inputs):
    return to_vocabulary(decode(inputs, encode(src, params, config)[0], src, params, config)[0], params, config)[0]


targets = rng.integers(4, 12, (2, 6))
assert_causal(say, shift_right(targets, config.bos))
print("the decoder does not see the future; its input is the target, one place to the right:")
print(targets[0], "->", shift_right(targets, config.bos)[0])
