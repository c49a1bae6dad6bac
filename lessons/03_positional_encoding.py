# %% [markdown]
# # Positional encoding
# Attention sees a set: permute the words, and the outputs permute with them. A position has to be added to each word.
# Vaswani et al. 2017, section 3.5; articles A (part 1), C (section 2.2), D and E.

# %%
from pathlib import Path

import numpy as np

from tinymae import plot, plot_text
from tinymae.ops.positional import get_positional_encoding, sincos_2d, sinusoidal_halves, sinusoidal_interleaved

figures = Path("figures")

# %% [markdown]
# ## The formula, as a loop
# $PE(pos, 2i) = \sin(pos / 10000^{2i/D})$, $PE(pos, 2i+1) = \cos(pos / 10000^{2i/D})$: each pair is the hand of a clock.


# %%
def loop(length, width):
    table = np.zeros((length, width))
    for pos in range(length):
        for column in range(width):
            angle = pos / 10000 ** (column // 2 * 2 / width)
            table[pos, column] = np.sin(angle) if column % 2 == 0 else np.cos(angle)
    return table


np.testing.assert_allclose(loop(10, 64), sinusoidal_interleaved(10, 64), atol=1e-14)

# %% [markdown]
# ## Three layouts, the same idea
# Article D shows the interleaved layout (10 x 64) and the one in halves (20 x 512): the same numbers in another order.

# %%
print(plot.save(plot.positional_encoding(sinusoidal_interleaved(10, 64)), figures / "positional_interleaved.png"))
print(plot.save(plot.positional_encoding(sinusoidal_halves(20, 512)), figures / "positional_halves.png"))

# %% [markdown]
# Article A's code has two quirks: the exponent counts columns, not pairs, so a sine and its cosine run at different speeds;
# and row 0 stays zero, where the paper has cos(0) = 1.

# %%
article, paper = get_positional_encoding(100, 16), sinusoidal_interleaved(100, 16)
assert not article[0].any() and (paper[0, 1::2] == 1).all()
print(plot.save(plot.positional_encoding(article), figures / "positional_article_a.png"))

# %% [markdown]
# Pictures have two positions. MAE gives half of the width to the column, half to the row.

# %%
print(plot.save(plot.position_grid(sincos_2d((8, 8), 128), (8, 8)), figures / "positional_2d.png"))

# %% [markdown]
# ## An offset is a rotation
# The same 2 x 2 rotation takes every PE(pos) to PE(pos + k): the model can learn "three words back" once, for all positions.
# And the formula has a row 21 when training ended at row 20.

# %%
k, table = 3, sinusoidal_interleaved(21, 8)
for pair in range(4):
    angle = k / 10000 ** (2 * pair / 8)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    clock = table[:, 2 * pair : 2 * pair + 2]
    np.testing.assert_allclose(clock[:-k] @ rotation.T, clock[k:], atol=1e-12)
print(plot.save(plot_text.position_rotation(table, k), figures / "positional_rotation.png"))
