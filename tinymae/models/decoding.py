"""Decoding: one word at a time, greedily, with a beam, or by chance.

In training the decoder sees the true sentence at once, behind a causal mask. In use there is no sentence yet: it says a word,
is fed it, and says the next (article A, worked example; article C, section 5). What earlier words gave as keys and values does
not change, so it is kept: a step computes one query, and looks at all keys so far. The numbers are those of
`models.transformer.decode`. <pad> and <bos> are never said, nor what is in `never`: a translator may rule out <unk>.

Beam search keeps the W best beginnings. A longer sentence is always less likely than its beginning, so finished ones compare by

    score = log p / ((5 + length) / 6)^alpha                    Wu et al. 2016, equation 14; alpha = 0: no penalty

Differs: length counts <eos>, as in Tensor2Tensor. A finished sentence keeps its place in the beam, which so gets narrower until
all are finished: with W = 1 this is greedy decoding.
"""
import math
from typing import NamedTuple

import numpy as np

from tinymae.blocks import feed_forward_forward
from tinymae.masks import padding_mask
from tinymae.models.transformer import POSITIONS, encode, to_vocabulary
from tinymae.ops.attention import scaled_dot_product_attention_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.linear import linear_forward


class Decoded(NamedTuple):
    """What the decoders return, for a batch of B sources."""

    ids: np.ndarray             # (B, T) integers: words, <eos>, padding
    log_probs: np.ndarray       # (B,) natural logarithm of each sentence's probability
    cross: np.ndarray           # (B, L, H, T, Tk): where each word looked in the source
    self_attention: np.ndarray  # (B, L, H, T, T): where it looked among the words before it


class State:
    """Keys and values of all that was said, for every layer; rows are sentences in progress, `beam` for each source."""

    def __init__(self, src, params, config, length, beam=1):
        pieces = [encode(src[start : start + 64], params, config)[0] for start in range(0, len(src), 64)]  # less memory
        memory = np.concatenate(pieces)
        self.params, self.config, self.t = params, config, 0
        self.memory_mask = _repeat(padding_mask(src, config.pad), beam)
        self.table = params["embed"] if config.tie == "all" else params["tgt_embed"]
        if config.positions == "learned":
            self.positions = params["tgt_positions"]
        else:
            self.positions = POSITIONS[config.positions](length, config.d_model).astype(self.table.dtype)
        if length > len(self.positions):
            raise ValueError(f"expected at most {len(self.positions)} words, the learned positions, got max_len {length}")
        self.joined, self.memory, self.past = [], [], []
        for p in params["decoder"]["blocks"]:
            projections = [p["self_attn"][name] for name in "qkv"]                      # one product is faster than three
            self.joined.append({name: np.concatenate([each[name] for each in projections], -1) for name in projections[0]})
            kv = [linear_forward(memory, **p["cross_attn"][name])[0] for name in "kv"]
            heads = [x.reshape(*x.shape[:2], config.heads, -1).swapaxes(1, 2) for x in kv]
            self.memory.append([_repeat(x, beam) for x in heads])                       # (rows, H, Tk, d)
            widths = [each["w"].shape[1] // config.heads for each in projections[1:]]
            shape = beam * len(src), config.heads, length
            self.past.append([np.zeros((*shape, width), self.table.dtype) for width in widths])

    def step(self, ids):
        """Feed one word to each sentence, the t-th.

        Parameters
        ----------
        ids : integer ndarray of shape (rows,)

        Returns
        -------
        logits : ndarray of shape (rows, V), for the next word
        looked : list of (self-attention (rows, H, t), cross-attention (rows, H, Tk)), one for each layer
        """
        config, looked, layers = self.config, [], self.params["decoder"]["blocks"]
        x = self.table[ids]                                                             # (rows, D)
        if config.scale_embedding:
            x *= math.sqrt(config.d_model)
        x += self.positions[self.t]
        self.t += 1
        for p, joined, past, memory in zip(layers, self.joined, self.past, self.memory, strict=True):
            qkv, _ = linear_forward(self._before(x, p["ln1"]), **joined)
            width = p["self_attn"]["q"]["w"].shape[1]
            q, k, v = np.split(qkv, [width, 2 * width], axis=1)
            for kept, new in zip(past, (k, v), strict=True):
                kept[:, :, self.t - 1] = new.reshape(len(new), config.heads, -1)
            a, back = self._attention(q, p["self_attn"], *(kept[:, :, : self.t] for kept in past), None)
            x = self._after(x + a, p["ln1"])
            q, _ = linear_forward(self._before(x, p["ln2"]), **p["cross_attn"]["q"])
            a, across = self._attention(q, p["cross_attn"], *memory, self.memory_mask)
            x = self._after(x + a, p["ln2"])
            f, _ = feed_forward_forward(self._before(x, p["ln3"]), p["ffn"], config.activation)
            x = self._after(x + f, p["ln3"])
            looked.append((back, across))
        if "norm" in self.params["decoder"]:
            x, _ = layernorm_forward(x, **self.params["decoder"]["norm"], eps=config.eps)
        return to_vocabulary(x, self.params, config)[0], looked

    def choose(self, rows):
        """Go on with these sentences, in this order: each in the place of one of the same source, or else fewer than before."""
        for pair in self.past:
            for i, kept in enumerate(pair):
                kept[: len(rows), :, : self.t] = kept[rows, :, : self.t]
                pair[i] = kept[: len(rows)]
        if len(rows) < len(self.memory_mask):
            self.memory_mask = self.memory_mask[rows]
            self.memory = [[x[rows] for x in pair] for pair in self.memory]

    def _before(self, x, norm):
        return layernorm_forward(x, **norm, eps=self.config.eps)[0] if self.config.norm_first else x

    def _after(self, x, norm):
        return x if self.config.norm_first else layernorm_forward(x, **norm, eps=self.config.eps)[0]

    def _attention(self, q, p, k, v, mask):
        z, cache = scaled_dot_product_attention_forward(q.reshape(len(q), self.config.heads, 1, -1), k, v, mask)
        y, _ = linear_forward(z.reshape(len(z), -1), **p["out"])
        return y, cache.weights[:, :, 0]


def _repeat(x, times):
    return x.repeat(times, axis=0) if times > 1 else x


def _log_sum(logits):
    """log sum exp over the vocabulary (rows,): a word's logit less this is its log-probability."""
    top = logits.max(axis=-1)
    if not (math.isfinite(top.max()) and math.isfinite(logits.min())):                  # NaN comes through both
        raise ValueError("expected finite logits, got inf or NaN: look at the parameters, did training diverge?")
    shifted = logits - top[:, None]
    return top + np.log(np.exp(shifted, out=shifted).sum(axis=-1))


def _rule_out(logits, config, never):
    """Nobody says <pad>, <bos> and what is in never."""
    logits[:, [config.pad, config.bos, *never]] = -np.inf


def _worth_keeping(running):
    """Rows to go on with: all, until a quarter has come to its end; then those that are running."""
    return np.flatnonzero(running) if running.mean() < 0.75 else np.arange(len(running))


def _length(src, params, config, max_len):
    """How many words may be said."""
    if src.ndim != 2 or not src.size:
        raise ValueError(f"expected src (B, Tk), not empty, got {src.shape}: one sentence alone is src[None]")
    if max_len is None:
        max_len = 2 * src.shape[1] + 10
        return min(max_len, len(params["tgt_positions"])) if config.positions == "learned" else max_len
    if max_len < 1:
        raise ValueError(f"expected max_len of at least 1, got {max_len}")
    return max_len


def greedy(src, params, config, max_len=None, never=()):
    """The likeliest next word, again and again.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk), padded
    params, config : as `models.transformer.transformer_forward`
    max_len : int, words at most, <eos> included; None for twice the source and ten (or all learned positions, if fewer)
    never : sequence of int, words that are not said; their probability is nobody's

    Returns
    -------
    Decoded

    Raises
    ------
    TypeError
        where src does not hold integers
    ValueError
        where src is not a batch of sentences, max_len does not fit, or the parameters give no finite logits
    """
    return _one_by_one(src, params, config, max_len, never, lambda logits, rows: logits.argmax(axis=-1))


def sample(src, params, config, rng, temperature=1.0, top_k=None, max_len=None, never=()):
    """A word drawn by its probability, again and again.

    Parameters
    ----------
    src, params, config, max_len, never : as `greedy`
    rng : numpy.random.Generator
    temperature : float, positive: below 1 bolder, towards `greedy`; above 1 wilder
    top_k : int, draw among the k likeliest only; or None

    Returns
    -------
    Decoded; its log_probs are those of the model, without temperature and top_k

    Raises
    ------
    TypeError, ValueError
        as `greedy`, and where temperature or top_k are not positive
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a positive, finite temperature, got {temperature}: greedy() is what 0 would be")
    if top_k is not None and top_k < 1:
        raise ValueError(f"expected top_k of at least 1, got {top_k}: None draws among all words")

    def draw(logits, rows):
        # From the likeliest word down, in float64: no temperature is too small for that.
        scores = np.subtract(logits, logits.max(axis=1, keepdims=True), dtype=np.float64) / temperature
        if top_k is not None and top_k < scores.shape[1]:
            least = np.partition(scores, -top_k, axis=1)[:, -top_k, None]
            scores = np.where(scores >= least, scores, -np.inf)
        return (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)      # Gumbel noise: argmax is then a draw from softmax

    return _one_by_one(src, params, config, max_len, never, draw)


def _one_by_one(src, params, config, max_len, never, choose):
    """Decoded, with choose: logits (rows, V), rows (of the batch) -> words (rows,)."""
    max_len, batch = _length(src, params, config, max_len), len(src)
    state = State(src, params, config, max_len)
    rows, running = np.arange(batch), np.ones(batch, bool)      # sentences in `state`, and which of them have not ended
    ids, total, looked = np.full((batch, max_len), config.pad), np.zeros(batch), []
    word = np.full(batch, config.bos)
    while running.any() and state.t < max_len:
        logits, weights = state.step(word)
        log_sum = _log_sum(logits)
        _rule_out(logits, config, never)
        word = np.where(running, choose(logits, rows), config.pad)
        total[rows[running]] += (logits[np.arange(len(rows)), word] - log_sum)[running]
        ids[rows, state.t - 1] = word
        looked.append((rows, weights))
        running &= word != config.eos
        kept = _worth_keeping(running)
        if len(kept) < len(rows):
            state.choose(kept)
            rows, word, running = rows[kept], word[kept], running[kept]
    ids = ids[:, : state.t]
    layers = config.decoder_layers
    cross = np.zeros((batch, layers, config.heads, state.t, src.shape[1]), logits.dtype)
    self_attention = np.zeros((*cross.shape[:4], state.t), logits.dtype)
    for t, (rows, weights) in enumerate(looked):
        for i, (back, across) in enumerate(weights):
            self_attention[rows, i, :, t, : t + 1], cross[rows, i, :, t] = back, across
    silent = (ids == config.pad)[:, None, None, :, None]        # behind <eos> nothing was said, and nobody looked
    np.copyto(cross, 0, where=silent)
    np.copyto(self_attention, 0, where=silent)
    return Decoded(ids, total, cross, self_attention)


def beam_search(src, params, config, beam=4, alpha=0.6, max_len=None, never=()):
    """The best sentence among those that `beam` beginnings lead to.

    Parameters
    ----------
    src, params, config, max_len, never : as `greedy`
    beam : int, W; 1 is `greedy`
    alpha : float, length penalty, see the top of this file

    Returns
    -------
    Decoded; its log_probs are those of the model, without length penalty

    Raises
    ------
    TypeError, ValueError
        as `greedy`, and where beam is not positive
    """
    if beam < 1:
        raise ValueError(f"expected a beam of at least 1, got {beam}")
    max_len, batch = _length(src, params, config, max_len), len(src)
    state = State(src, params, config, max_len, beam)                   # row b * W + w is beginning w of sentence b
    ids = np.full((batch, beam, max_len), config.pad)
    total = np.full((batch, beam), -np.inf)                             # -inf: no beginning in this place
    total[:, 0] = 0                                                     # all begin alike: one is enough
    finished = [[] for _ in range(batch)]                               # (score, words) of each sentence
    searched = finished                                                 # those of the sentences in `state`
    word = np.full(batch * beam, config.bos)
    while state.t < max_len and (total > -np.inf).any():
        logits, _ = state.step(word)
        log_probs = logits - _log_sum(logits)[:, None]
        _rule_out(log_probs, config, never)
        scores, t = total[..., None] + log_probs.reshape(*total.shape, -1), state.t     # (B, W, V)
        origin, chosen = np.zeros(total.shape, int), np.full(total.shape, config.pad)
        total = np.full(total.shape, -np.inf)
        for b, done in enumerate(searched):
            free = beam - len(done)                                     # a finished sentence keeps its place in the beam
            for place, candidate in enumerate(_largest(scores[b].ravel(), free)):
                row, new = divmod(candidate, scores.shape[2])
                if new == config.eos or t == max_len:
                    sentence = np.append(ids[b, row, : t - 1], new)
                    done.append((scores[b, row, new] / ((5 + t) / 6) ** alpha, sentence))
                else:
                    origin[b, place], chosen[b, place], total[b, place] = row, new, scores[b, row, new]
        ids = np.take_along_axis(ids, origin[..., None], axis=1)
        ids[..., t - 1] = chosen
        kept = _worth_keeping((total > -np.inf).any(axis=1))
        state.choose((origin + beam * np.arange(len(searched))[:, None])[kept].ravel())
        ids, total, word, searched = ids[kept], total[kept], chosen[kept].ravel(), [searched[b] for b in kept]
    best = [max(sentences, key=lambda found: found[0])[1] for sentences in finished]
    ids = np.full((max(map(len, best)), batch), config.pad)             # (T, B)
    for b, sentence in enumerate(best):
        ids[: len(sentence), b] = sentence
    # The winners are said once more, alone, to see where they look: cheaper than to carry that along for all beginnings.
    words = iter(ids)
    return _one_by_one(src, params, config, len(ids), never, lambda logits, rows: next(words)[rows])


def _largest(scores, count):
    """Indices of the `count` largest scores (n,) above -inf, best first, of equals the first first."""
    if count < 1:
        return []
    least = np.partition(scores, -count)[-count] if count < len(scores) else -np.inf
    found = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return found[np.argsort(-scores[found], kind="stable")][:count]
