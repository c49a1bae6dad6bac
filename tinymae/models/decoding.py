"""Decoding, source ids in, generated ids out: one token at a time, greedily, with a beam, or at random.

In training the decoder receives the whole target at once, behind a causal mask. In use there is no target yet: the decoder
generates a token, receives it as input, and generates the next (article A, worked example; article C, section 5). The keys and
values of earlier tokens do not change, so they are kept: a step computes one query, which attends to all keys so far. The
numbers are those of `models.transformer.decode`. <pad> and <bos> are never generated, nor are the tokens in `never`: a
translator may rule out <unk>.

A sentence that does not end is cut off at a limit that depends on its own source alone. So its neighbours in a batch change
nothing but the last bits of its numbers.

Beam search keeps the W best beginnings. A longer sentence is always less probable than its beginning, so finished sentences are
compared by

    score = log p / ((5 + length) / 6)^alpha                    Wu et al. 2016, equation 14; alpha = 0: no penalty

Differs: length counts <eos>, as in Tensor2Tensor. A finished sentence keeps its place in the beam, so the search gets narrower
until all are finished: with W = 1 this is greedy decoding.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinymae.blocks import feed_forward_forward
from tinymae.masks import padding_mask
from tinymae.messages import marked, message
from tinymae.models.transformer import TransformerConfig, embedding_table, encode, position_table, to_vocabulary
from tinymae.ops.attention import scaled_dot_product_attention_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.linear import linear_forward


class Decoded(NamedTuple):
    """The result of decoding a batch of B sources; without attention, the last two are None."""

    ids: np.ndarray             # (B, T) integers: tokens, <eos>, padding
    log_probs: np.ndarray       # (B,) natural logarithm of each sentence's probability
    cross: np.ndarray | None            # (B, L, H, T, Tk): attention weights of each generated token over the source
    self_attention: np.ndarray | None   # (B, L, H, T, T): its attention weights over the tokens before it


class State:
    """Keys and values of all tokens so far, in every layer of the decoder. A row is an unfinished sentence.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk), padded
    params, config : as `models.transformer.transformer_forward`
    length : the number of tokens to make room for
    beam : rows for each source
    """

    def __init__(self, src: np.ndarray, params: dict, config: TransformerConfig, *, length: int, beam: int = 1):
        parts = [encode(src[start : start + 64], params, config)[0] for start in range(0, len(src), 64)]    # less memory
        memory = np.concatenate(parts)
        self.params, self.config, self.t = params, config, 0                            # t: tokens so far
        self.memory_mask = _repeat(padding_mask(src, config.pad), beam)
        self.table = embedding_table("tgt", params, config)
        self.positions = position_table("tgt", length, params, config)
        if length > len(self.positions):
            raise ValueError(message(
                marked("expected at most {most} tokens, the learned positions, got max_len {length}"),
                most=len(self.positions), length=length,
            ))
        self.qkv, self.memory, self.past = [], [], []                                   # one for each layer
        for p in params["decoder"]["blocks"]:
            projections = [p["self_attn"][name] for name in "qkv"]                      # one product is faster than three
            self.qkv.append({name: np.concatenate([each[name] for each in projections], -1) for name in projections[0]})
            kv = [linear_forward(memory, **p["cross_attn"][name])[0] for name in "kv"]
            heads = [x.reshape(*x.shape[:2], config.heads, -1).swapaxes(1, 2) for x in kv]
            self.memory.append([_repeat(x, beam) for x in heads])                       # k, v: (rows, H, Tk, d)
            dims = [each["w"].shape[1] // config.heads for each in projections[1:]]
            shape = beam * len(src), config.heads, length
            self.past.append([np.zeros((*shape, dim), self.table.dtype) for dim in dims])       # k, v: (rows, H, length, d)

    def step(self, ids: np.ndarray) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Append one token to each sentence, and predict the next.

        Parameters
        ----------
        ids : integer ndarray of shape (rows,)

        Returns
        -------
        logits : ndarray of shape (rows, V), of the next token
        weights : (self-attention (rows, H, t), cross-attention (rows, H, Tk)) of the token given, one pair for each layer
        """
        config, weights, layers = self.config, [], self.params["decoder"]["blocks"]
        x = self.table[ids]                                                             # (rows, D)
        if config.scale_embedding:
            x *= math.sqrt(config.d_model)
        x += self.positions[self.t]
        self.t += 1
        for p, qkv, past, memory in zip(layers, self.qkv, self.past, self.memory, strict=True):
            projected, _ = linear_forward(self._before(x, p["ln1"]), **qkv)
            width = p["self_attn"]["q"]["w"].shape[1]
            q, k, v = np.split(projected, [width, 2 * width], axis=1)
            for kept, new in zip(past, (k, v), strict=True):
                kept[:, :, self.t - 1] = new.reshape(len(new), config.heads, -1)
            y, self_attention = self._attention(q, p["self_attn"], *(kept[:, :, : self.t] for kept in past), None)
            x = self._after(x + y, p["ln1"])
            q, _ = linear_forward(self._before(x, p["ln2"]), **p["cross_attn"]["q"])
            y, cross = self._attention(q, p["cross_attn"], *memory, self.memory_mask)
            x = self._after(x + y, p["ln2"])
            y, _ = feed_forward_forward(self._before(x, p["ln3"]), p["ffn"], config.activation)
            x = self._after(x + y, p["ln3"])
            weights.append((self_attention, cross))
        if "norm" in self.params["decoder"]:
            x, _ = layernorm_forward(x, **self.params["decoder"]["norm"], eps=config.eps)
        return to_vocabulary(x, self.params, config)[0], weights

    def choose(self, rows: np.ndarray) -> None:
        """Continue with these rows, in this order: each takes the place of one of the same source, or fewer remain."""
        for pair in self.past:
            for i, kept in enumerate(pair):
                kept[: len(rows), :, : self.t] = kept[rows, :, : self.t]
                pair[i] = kept[: len(rows)]
        if len(rows) < len(self.memory_mask):
            self.memory_mask = self.memory_mask[rows]
            self.memory = [[x[rows] for x in pair] for pair in self.memory]

    # `blocks.add_norm_forward` once more, for one token (rows, D) and without a cache: before and after a sublayer.

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
    """log sum exp over the vocabulary (rows,): the logit of a token minus this is its log-probability."""
    top = logits.max(axis=-1)
    if not (math.isfinite(top.max()) and math.isfinite(logits.min())):                  # NaN shows in both
        raise ValueError(message(
            marked("expected finite logits, got inf or NaN: look at the parameters, did training diverge?")
        ))
    shifted = logits - top[:, None]
    return top + np.log(np.exp(shifted, out=shifted).sum(axis=-1))


def _rule_out(logits, config, never):
    """Set the logits of <pad>, <bos> and the tokens in never to -inf, in place."""
    logits[:, [config.pad, config.bos, *never]] = -np.inf


def _rows_to_keep(running):
    """Rows to continue with: all, until more than a quarter has ended; then only those that have not."""
    return np.flatnonzero(running) if running.mean() < 0.75 else np.arange(len(running))


def _limits(src, params, config, max_len, never):
    """How many tokens to generate at most, for each source (B,); raises if max_len, src or never does not fit the model."""
    if src.ndim != 2 or not src.size:
        raise ValueError(f"expected src (B, Tk), not empty, got {src.shape}: one sentence alone is src[None]")
    if wrong := [token for token in never if not 0 <= token < config.tgt_vocab]:
        raise ValueError(f"expected never to hold ids in [0, {config.tgt_vocab}), got {wrong[0]}: is it of another vocabulary?")
    if max_len is None:
        limits = 2 * np.count_nonzero(src != config.pad, axis=1) + 10
        return np.minimum(limits, len(params["tgt_positions"])) if config.position_encoding == "learned" else limits
    if max_len < 1:
        raise ValueError(f"expected max_len of at least 1, got {max_len}")
    return np.full(len(src), max_len)


def greedy(
    src: np.ndarray, params: dict, config: TransformerConfig, *,
    max_len: int | None = None, never: Sequence[int] = (), attention: bool = True,
) -> Decoded:
    """Generate the most probable next token, again and again.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk), padded
    params, config : as `models.transformer.transformer_forward`
    max_len
        the largest number of tokens, <eos> included; None for ten and twice the tokens of each source, its padding not counted,
        or all learned positions if these are fewer
    never : tokens that are not generated; the probabilities of the others stay as they are
    attention : keep the attention weights of every token, which takes more memory than all the rest

    Raises
    ------
    TypeError
        if src does not hold integers
    ValueError
        if src is not a batch of sentences, max_len or never does not fit, or the parameters give logits that are not finite
    """
    limits = _limits(src, params, config, max_len, never)
    return _one_by_one(src, params, config, limits, never, attention, lambda logits, rows: logits.argmax(axis=-1))


def sample(
    src: np.ndarray, params: dict, config: TransformerConfig, *,
    rng: np.random.Generator, temperature: float = 1.0, top_k: int | None = None,
    max_len: int | None = None, never: Sequence[int] = (), attention: bool = True,
) -> Decoded:
    """Draw the next token by its probability, again and again.

    Parameters
    ----------
    src, params, config, max_len, never, attention : as `greedy`
    rng : source of the random draws
    temperature : positive. Below 1 favours probable tokens, towards `greedy`; above 1 favours improbable ones
    top_k : draw among the k most probable tokens only; None for all

    Returns
    -------
    Decoded; its log_probs are those of the model, without temperature and top_k

    Raises
    ------
    TypeError, ValueError
        as `greedy`, and if temperature or top_k is not positive
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a positive, finite temperature, got {temperature}: greedy() is what 0 would be")
    if top_k is not None and top_k < 1:
        raise ValueError(f"expected top_k of at least 1, got {top_k}: None draws among all tokens")

    def draw(logits, rows):
        # Relative to the most probable token, and in float64: no temperature is too small for that.
        scores = np.subtract(logits, logits.max(axis=1, keepdims=True), dtype=np.float64) / temperature
        if top_k is not None and top_k < scores.shape[1]:
            least = np.partition(scores, -top_k, axis=1)[:, -top_k, None]
            scores = np.where(scores >= least, scores, -np.inf)
        return (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)      # Gumbel noise: argmax is then a draw from softmax

    return _one_by_one(src, params, config, _limits(src, params, config, max_len, never), never, attention, draw)


def _one_by_one(src, params, config, limits, never, attention, choose):
    """Decoded, at most limits (B,) tokens of each, with choose: logits (rows, V), rows (of the batch) -> tokens (rows,)."""
    batch, longest = len(src), int(limits.max())
    state = State(src, params, config, length=longest)
    rows, running = np.arange(batch), np.ones(batch, bool)      # sentences in `state`, and which of them have not ended
    ids, total, steps = np.full((batch, longest), config.pad), np.zeros(batch), []
    token = np.full(batch, config.bos)
    while running.any():
        logits, weights = state.step(token)
        log_sum = _log_sum(logits)
        _rule_out(logits, config, never)
        token = np.where(running, choose(logits, rows), config.pad)
        total[rows[running]] += (logits[np.arange(len(rows)), token] - log_sum)[running]
        ids[rows, state.t - 1] = token
        if attention:
            steps.append((rows, weights))
        running &= (token != config.eos) & (state.t < limits[rows])
        kept = _rows_to_keep(running)
        if len(kept) < len(rows):
            state.choose(kept)
            rows, token, running = rows[kept], token[kept], running[kept]
    ids = ids[:, : state.t]
    if not attention:
        return Decoded(ids, total, None, None)
    layers = config.decoder_layers
    cross = np.zeros((batch, layers, config.heads, state.t, src.shape[1]), logits.dtype)
    self_attention = np.zeros((*cross.shape[:4], state.t), logits.dtype)
    for t, (rows, weights) in enumerate(steps):
        for i, layer in enumerate(weights):
            self_attention[rows, i, :, t, : t + 1], cross[rows, i, :, t] = layer
    ended = (ids == config.pad)[:, None, None, :, None]         # after its end a sentence has no token, and none attends
    np.copyto(cross, 0, where=ended)
    np.copyto(self_attention, 0, where=ended)
    return Decoded(ids, total, cross, self_attention)


def beam_search(
    src: np.ndarray, params: dict, config: TransformerConfig, *,
    beam: int = 4, alpha: float = 0.6, max_len: int | None = None, never: Sequence[int] = (), attention: bool = True,
) -> Decoded:
    """The best sentence among those that `beam` beginnings lead to.

    A step, from the log probabilities `totals` (W,) of W beginnings, and `log_probs` (W, V) of the next token of each:

        (1)  score[w, v] = totals[w] + log_probs[w, v]
        (2)  kept = top_W(score)                            the W largest of all W * V scores, best first

    Parameters
    ----------
    src, params, config, max_len, never, attention : as `greedy`
    beam : W; 1 is `greedy`
    alpha : length penalty, see the top of this file

    Returns
    -------
    Decoded; its log_probs are those of the model, without length penalty

    Raises
    ------
    TypeError, ValueError
        as `greedy`, and if beam is not positive
    """
    if beam < 1:
        raise ValueError(message(marked("expected a beam of at least 1, got {beam}"), beam=beam))
    limits, batch = _limits(src, params, config, max_len, never), len(src)
    longest = int(limits.max())
    state = State(src, params, config, length=longest, beam=beam)       # row b * W + w is beginning w of sentence b
    ids = np.full((batch, beam, longest), config.pad)
    total = np.full((batch, beam), -np.inf)                             # -inf: no beginning in this place
    total[:, 0] = 0                                                     # all start the same: one is enough
    finished = [[] for _ in range(batch)]                               # (score, log p, tokens) of each sentence
    searched = list(zip(finished, limits, strict=True))                 # those of the sentences in `state`, and their limits
    token = np.full(batch * beam, config.bos)
    while (total > -np.inf).any():
        logits, _ = state.step(token)
        log_probs = logits - _log_sum(logits)[:, None]
        _rule_out(log_probs, config, never)
        scores, t = total[..., None] + log_probs.reshape(*total.shape, -1), state.t     # (B, W, V)
        origin, chosen = np.zeros(total.shape, int), np.full(total.shape, config.pad)
        total = np.full(total.shape, -np.inf)
        for b, (done, limit) in enumerate(searched):
            free = beam - len(done)                                     # a finished sentence keeps its place in the beam
            for place, candidate in enumerate(_largest(scores[b].ravel(), free)):
                row, new = divmod(candidate, scores.shape[2])
                if new == config.eos or t == limit:
                    sentence = np.append(ids[b, row, : t - 1], new)
                    log_p = scores[b, row, new]
                    done.append((log_p / ((5 + t) / 6) ** alpha, log_p, sentence))
                else:
                    origin[b, place], chosen[b, place], total[b, place] = row, new, scores[b, row, new]
        ids = np.take_along_axis(ids, origin[..., None], axis=1)
        ids[..., t - 1] = chosen
        kept = _rows_to_keep((total > -np.inf).any(axis=1))
        state.choose((origin + beam * np.arange(len(searched))[:, None])[kept].ravel())
        ids, total, token, searched = ids[kept], total[kept], chosen[kept].ravel(), [searched[b] for b in kept]
    _, totals, best = zip(*(max(sentences, key=lambda found: found[0]) for sentences in finished), strict=True)
    lengths = np.array([len(sentence) for sentence in best])
    ids = np.full((batch, lengths.max()), config.pad)
    for row, sentence in zip(ids, best, strict=True):
        row[: len(sentence)] = sentence
    if not attention:
        return Decoded(ids, np.array(totals, np.float64), None, None)
    # The best sentences are generated once more, for their attention: cheaper than to keep it for all beginnings.
    tokens = iter(ids.T)
    return _one_by_one(src, params, config, lengths, never, True, lambda logits, rows: next(tokens)[rows])


def _largest(scores, count):
    """Indices of the `count` largest scores (n,) above -inf, best first; among equal scores the first comes first."""
    if count < 1:
        return []
    # `count` groups reach `least`, so the largest scores do, too: five times as fast as to compare all scores.
    tops = np.maximum.reduceat(scores, np.arange(0, len(scores), 64))
    least = np.partition(tops, -count)[-count] if count < len(tops) else -np.inf
    found = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return found[np.argsort(-scores[found], kind="stable")][:count]
