"""Greedy decoding that stops at <eos> in every trial.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. All sentences of a
batch are generated together:

    (1)  token[b] = argmax_v logits[b, v]       the next token has the largest logit
    (2)  ids[b, t] = pad                        after the first <eos> of a sentence, which ends there
    (3)  T <= longest                           decoding ends here, or as soon as all sentences have ended
"""
import numpy as np

EXERCISE = "greedy_ends_together"                               # python -m tinymae check greedy_ends_together.py


def greedy(next_logits, batch, bos, eos, pad, longest):
    """next_logits(ids (B, T)) -> logits (B, V) of the next token.  Returns ids (B, T) without <bos>."""
    ids = np.full((batch, 1), bos)
    for _ in range(longest):
        token = next_logits(ids).argmax(axis=-1)                # (1)  (B,)
        ids = np.concatenate([ids, token[:, None]], axis=1)
        if (token == eos).all():                                # (2), (3)
            break
    return ids[:, 1:]


# ---- why nobody noticed: stop here, and guess first ----
# It asks whether all sentences generate <eos> in the same step. If one ends earlier, nobody remembers that: it goes on, and the
# loop ends only when all of them happen to generate <eos> together, or at the largest length. A single sentence, or several of
# the same length, come out right, and those were the trials. A well-known library was found to stop in this way
# (Dao-AILab/flash-attention, pull request 2784).
