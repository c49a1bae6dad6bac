import numpy as np


def beam_step(totals, log_probs):
    beam, vocabulary = log_probs.shape
    scores = totals[:, None] + log_probs                        # (1)
    best = np.argsort(-scores, axis=None)[:beam]                # (2)
    origin, word = np.divmod(best, vocabulary)
    return origin, word, scores[origin, word]
