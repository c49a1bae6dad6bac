# %% [markdown]
# # Training a translator
# A very small corpus: 45 French sentences around article D's `je suis étudiant` -> `i am a student`. It
# trains in seconds, so that you can break it as often as you like. Vaswani et al. 2017, section 5; article D, training.

# %%
import math
import tempfile
from pathlib import Path

import numpy as np

from tinymae import plot, plot_text
from tinymae.data.corpus import load_corpus
from tinymae.data.text import pad_batch
from tinymae.masks import shift_right
from tinymae.models.transformer import transformer_forward
from tinymae.ops.softmax import softmax_forward
from tinymae.optim import noam, warmup_cosine
from tinymae.translation import Translator, train_translator

figures = Path("figures")
corpus = load_corpus(["french"])
print(len(corpus.train), "pairs to learn from;", "held out:", *corpus.held_out, sep="\n  ")

# %% [markdown]
# ## The learning rate
# Up, then down. Without the way up, the first steps are as long as Adam allows before it knows how large gradients are.

# %%
total = 4000
curves = {
    "Noam, 512 wide, warm-up 400": np.array([noam(step, 512, 400) for step in range(1, total + 1)]),
    "Noam, 512 wide, warm-up 1600": np.array([noam(step, 512, 1600) for step in range(1, total + 1)]),
    "warm-up and cosine": np.array([warmup_cosine(step, total, 200, 2e-3) for step in range(total)]),
}
print(plot.save(plot_text.learning_rates(curves), figures / "learning_rates.png"))

# %% [markdown]
# ## Train
# Teacher forcing: the decoder is fed the true words, one place to the right, and asked for the next one at every place at once.

# %%
folder = tempfile.TemporaryDirectory()
run = train_translator(corpus, folder.name, steps=300, bar=False)
translator = Translator.load(folder.name)
print(f"loss {run.losses[0]:.2f} -> {run.losses[-1]:.2f} (with label smoothing it cannot reach 0)")
assert translator.translate(["je suis étudiant"]) == ["i am a student"]

# %% [markdown]
# ## Target outputs against trained outputs
# Article D's two tables: what the loss asks for, and what the trained model says, word by word.

# %%
source, target = translator.languages
src, targets = (pad_batch([language.encode(text)]) for language, text in
                zip(translator.languages, ("je suis étudiant", "i am a student"), strict=True))  # fmt: skip
print("the decoder is fed", target.words(shift_right(targets, 1)[0]), "and asked for", target.words(targets[0]), "<eos>")
loss, cache = transformer_forward(src, targets, translator.params, translator.config)
probabilities = softmax_forward(cache["logits"])[0]
print(f"loss {loss:.3f}; knowing nothing would be ln {len(target.vocabulary)} = {math.log(len(target.vocabulary)):.2f}")
one_hot = np.eye(len(target.vocabulary))[cache["words"]]
print(plot.save(plot_text.output_probabilities(one_hot, probabilities, target.vocabulary.words), figures / "outputs.png"))

# %% [markdown]
# ## Where each word looked
# Greedy decoding keeps the attention of every layer and head.

# %%
sources, words, decoded = translator.decode("je ne suis pas étudiant")
print(" ".join(words))
for layer, weights in enumerate(decoded.cross[0]):              # (H, T, Tk)
    print(plot.save(plot.attention(weights, words, sources), figures / f"translator_attention_{layer}.png"))
word = words.index("not")
lines = plot_text.attention_lines(words, decoded.cross[0].mean(axis=0), word, sources)
print(plot.save(lines, figures / "translator_lines.png"))
folder.cleanup()
