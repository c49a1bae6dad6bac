"""The tab "attention" of the live page: functions that take the models and JSON values, and return what JSON can write.

    translator  which model answers, and sentences to start with
    translate   a sentence -> its translation, the probabilities of each step, and the attention of all layers and heads
    gradient    one token of a translation -> the gradient of its loss at all scores, and at the source tokens

Both run the whole target through the decoder at once, behind the causal mask, as in training: `translate` after decoding, with
the tokens that it generated. The last head of each layer is one that does not exist: the mean of all heads.
"""
import math
from typing import NamedTuple

import numpy as np

from tinymae import tree
from tinymae.blocks import add_norm_backward, feed_forward_backward, multi_head_attention_backward
from tinymae.masks import causal_mask, shift_right
from tinymae.messages import message as _
from tinymae.models.decoding import beam_search, greedy, sample
from tinymae.models.transformer import TransformerConfig, decode, encode, to_vocabulary
from tinymae.ops.layernorm import layernorm_backward
from tinymae.ops.linear import linear_backward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.play.shown import rounded

LONGEST = 32                                                    # tokens of a sentence, <eos> included: answers stay small
WIDEST = 8                                                      # beam
TOP = 5                                                         # tokens of a step that are shown
COLDEST, HOTTEST = 0.05, 5                                      # temperatures above 0
EXAMPLES = (
    "我有一只猫", "我爸爸昨天没买杯子", "你为什么喜欢猫", "因为她太累了，所以她不想看书", "I have a cat",
    "She does not want to read a book because she is too tired",
)


class Gradient(NamedTuple):
    """The loss of one target token, and its gradient."""

    loss: float                                                 # -log p(token)
    scores: dict[str, list[np.ndarray]]                         # "encoder", "decoder", "cross": (H, Tq, Tk) for each layer
    source: np.ndarray                                          # (Tk, D), at the embedding of each source token


def described_translator(models: object) -> dict:
    """Which translator answers, and sentences to start with.

    Parameters
    ----------
    models : a `play.api.Models`

    Returns
    -------
    {"name": "" for the translator that comes with the package; "examples": those of EXAMPLES that have no unknown token}
    """
    translator = models.translator
    known = [text for text in EXAMPLES if translator.unknown not in translator.encode(text)]
    return {"name": translator.name, "examples": known}


def translate(models: object, *, text: str, beam: int = 1, temperature: float = 0, seed: int = 0) -> dict:
    """Translate a sentence, and show how.

    Parameters
    ----------
    models : a `play.api.Models`
    text : the sentence
    beam : of beam search; 1 is greedy decoding
    temperature : 0 for beam search or greedy decoding; above 0 the tokens are drawn at random
    seed : of the draws

    Returns
    -------
    {"text", "log_p" of the sentence, "ended": whether it has its <eos>;
     "source", "inputs", "target": lists of tokens, of the encoder, of the decoder, and those that it generates;
     "unknown": the positions in source that are <unk> to the model; "ids" of target;
     "layers", "heads": {"encoder", "decoder", "cross"} each;
     "steps": for each target token {"token", "p", "drawn", "top": its five most probable tokens, {"token", "p", "drawn"} each};
     "attention": {"encoder", "decoder", "cross"}, each {"scores", "weights"}: nested lists (L, H + 1, Tq, Tk); that of the
     decoder has "unmasked", what the weights were without the mask, and "mask" (Tq, Tk), 1 = may attend, too}

    "drawn" is the probability with which a token was drawn: with the temperature, and without the tokens that are never
    generated. It is None if nothing was drawn.
    """
    translator = models.translator
    src = _source(translator, text)
    _whole(1, WIDEST, beam=beam)
    _whole(0, 2**32 - 1, seed=seed)
    if type(temperature) not in (int, float) or not (temperature == 0 or COLDEST <= temperature <= HOTTEST):
        raise ValueError(_(
            "expected a temperature of 0, or from {coldest} to {hottest}, got {temperature!r}: 0 draws nothing at random",
            coldest=COLDEST, hottest=HOTTEST, temperature=temperature,
        ))
    if temperature and beam > 1:
        raise ValueError(_(
            "expected a temperature of 0 with a beam of {beam}, got {temperature}: beam search looks for the most probable "
            "sentence and draws nothing at random", beam=beam, temperature=temperature,
        ))
    params, config = translator.params, translator.config
    options = {"max_len": LONGEST, "never": translator.never, "attention": False}
    if temperature:
        rng = np.random.default_rng(seed)
        decoded = sample(src, params, config, rng=rng, temperature=temperature, **options)
    elif beam > 1:
        decoded = beam_search(src, params, config, beam=beam, **options)
    else:
        decoded = greedy(src, params, config, **options)
    ids = decoded.ids                                           # (1, Tq)
    memory, encoder = encode(src, params, config)
    x, decoder = decode(shift_right(ids, config.bos), memory, src, params, config)
    logits = to_vocabulary(x[0], params, config)[0]             # (Tq, V)
    tokens = [translator.token(i) for i in ids[0].tolist()]
    mask = causal_mask(len(tokens))
    blocks = {"encoder": encoder["encoder"]["blocks"], "decoder": decoder["decoder"]["blocks"]}
    return {
        "text": translator.text(ids[0].tolist()),
        "log_p": rounded(decoded.log_probs[0]),
        "ended": bool(ids[0, -1] == config.eos),
        "source": [*translator.tokens(text), translator.token(config.eos)],
        "inputs": [translator.token(config.bos), *tokens[:-1]],
        "target": tokens,
        "unknown": np.flatnonzero(src[0] == translator.unknown).tolist(),
        "ids": ids[0].tolist(),
        "layers": {"encoder": config.encoder_layers, "decoder": config.decoder_layers, "cross": config.decoder_layers},
        "heads": config.heads,
        "steps": _steps(translator, ids[0], logits, temperature),
        "attention": {
            "encoder": _attention(blocks["encoder"], "attn"),
            "decoder": _attention(blocks["decoder"], "self_attn", mask) | {"mask": mask[0, 0].astype(int).tolist()},
            "cross": _attention(blocks["decoder"], "cross_attn"),
        },
    }


def gradient(models: object, *, text: str, target: list, position: int) -> dict:
    """The gradient of the loss of one target token, -log p(token), given the source and the target tokens before it.

    Parameters
    ----------
    models : a `play.api.Models`
    text : the source sentence
    target : ids of the target's tokens, the "ids" of `translate`
    position : of the token in target

    Returns
    -------
    {"token", "p", "loss";
     "dscores": {"encoder", "decoder", "cross"}: nested lists (L, H + 1, Tq, Tk), the gradient at the scores, after their
     division by sqrt(d_k) and in front of the mask;
     "source": for each source token {"norm", "dot"}: the norm of the gradient at its embedding e, and the product of both}

    "dot" is the slope of the loss in a factor of the embedding: negative if a larger embedding makes the token more probable.
    The sum of the gradient's entries is no such sign: in a pre-norm model it is zero, because every path goes through a layer
    norm, whose backward lets nothing through along (1, ..., 1).
    """
    translator = models.translator
    config, vocabulary = translator.config, translator.config.tgt_vocab
    src = _source(translator, text)
    if not isinstance(target, list) or not 1 <= len(target) <= LONGEST:
        got = len(target) if isinstance(target, list) else type(target).__name__
        raise ValueError(_("expected target to be a list of 1 to {longest} ids, got {got}: send the ids of a translation",
                           longest=LONGEST, got=got))
    for i in target:
        _whole(0, vocabulary - 1, target=i)
    _whole(0, len(target) - 1, position=position)
    params = tree.map(lambda leaf: leaf.astype(np.float64), translator.params)      # 1 - p keeps its digits if p is nearly 1
    found = token_gradient(src, np.array([target]), position, params, config)
    embedded = params["embed" if config.tie == "all" else "src_embed"][src[0]]      # (Tk, D)
    norms, dots = np.sqrt(np.vecdot(found.source, found.source)), np.vecdot(found.source, embedded)
    return {
        "token": translator.token(target[position]),
        "p": rounded(math.exp(-found.loss)),
        "loss": rounded(found.loss),
        "dscores": {kind: rounded(_with_mean(dscores)) for kind, dscores in found.scores.items()},
        "source": [{"norm": rounded(norm), "dot": rounded(dot)} for norm, dot in zip(norms, dots, strict=True)],
    }


def token_gradient(src: np.ndarray, ids: np.ndarray, position: int, params: dict, config: TransformerConfig) -> Gradient:
    """The loss of the target token ids[0, position], and its gradient.

    The backward is that of `models.transformer`, with one more line in each attention: it keeps dscores. It needs no gradient
    of parameters, so it lets these go.

    Parameters
    ----------
    src, ids : integer ndarrays of shape (1, Tk) and (1, Tq)
    position : of the token
    params, config : as `models.transformer.transformer_forward`
    """
    memory, encoder = encode(src, params, config)
    x, decoder = decode(shift_right(ids, config.bos), memory, src, params, config)
    logits, vocabulary = to_vocabulary(x[:, position], params, config)              # (1, V)
    loss, entropy = cross_entropy_forward(logits, ids[:, position])
    dx = np.zeros_like(x)                                       # all other positions have no loss
    dx[:, position] = linear_backward(cross_entropy_backward(1.0, entropy), vocabulary)[0]
    scores = {"encoder": [], "decoder": [], "cross": []}

    def attention_backward(kind):
        def backward(dy, cache):
            scores[kind].insert(0, _dscores(dy, cache))
            dxq, dxkv, *_dp = multi_head_attention_backward(dy, cache)
            return (dxq, dxkv) if kind == "cross" else (dxq + dxkv,)
        return backward

    dx, dmemory = _norm_backward(dx, decoder["decoder"]["norm"]), 0
    for block in reversed(decoder["decoder"]["blocks"]):
        dx = add_norm_backward(dx, block["ffn"], feed_forward_backward)[0]
        dx, _dnorm, dlayer_memory = add_norm_backward(dx, block["cross_attn"], attention_backward("cross"))
        dx = add_norm_backward(dx, block["self_attn"], attention_backward("decoder"))[0]
        dmemory = dmemory + dlayer_memory                       # every layer attended to the same memory
    dx = _norm_backward(dmemory, encoder["encoder"]["norm"])
    for block in reversed(encoder["encoder"]["blocks"]):
        dx = add_norm_backward(dx, block["ffn"], feed_forward_backward)[0]
        dx = add_norm_backward(dx, block["attn"], attention_backward("encoder"))[0]
    if config.scale_embedding:
        dx = dx * math.sqrt(config.d_model)                     # x = embedding sqrt(D) + positions
    return Gradient(float(loss), scores, dx[0])


def _dscores(dy, cache):
    """Gradient (H, Tq, Tk) at the scores of a `multi_head_attention_forward` of one sentence, from dy (1, Tq, D)."""
    weights, v = cache["attention"].weights, cache["attention"].v
    dz = linear_backward(dy, cache["out"])[0]                   # (1, Tq, H d)
    dz = dz.reshape(*dz.shape[:2], weights.shape[1], -1).swapaxes(1, 2)             # (1, H, Tq, d)
    dweights = dz @ v.swapaxes(-1, -2)                          # z = weights v
    return softmax_backward(dweights, (weights,))[0]


def _norm_backward(dy, cache):
    """dx of the layer norm after a stack, or dy if it has none."""
    return dy if cache is None else layernorm_backward(dy, cache)[0]


def _attention(blocks, name, mask=None):
    """Scores and weights of one attention in all layers, lists (L, H + 1, Tq, Tk); with a mask, the weights without it, too."""
    caches = [block[name]["sublayer"]["attention"] for block in blocks]
    scores = [cache.q[0] @ cache.k[0].swapaxes(-1, -2) / math.sqrt(cache.q.shape[-1]) for cache in caches]     # (H, Tq, Tk)
    shown = {"scores": scores, "weights": [cache.weights[0] for cache in caches]}
    if mask is not None:
        shown["unmasked"] = [softmax_forward(each)[0] for each in scores]
    return {key: rounded(_with_mean(layers)) for key, layers in shown.items()}


def _with_mean(layers):
    """L arrays (H, Tq, Tk) -> L arrays (H + 1, Tq, Tk): the last is the mean over the heads."""
    return [np.concatenate([heads, heads.mean(axis=0, keepdims=True)]) for heads in layers]


def _steps(translator, ids, logits, temperature):
    """The probabilities of each step: see `translate`."""
    config = translator.config
    p = softmax_forward(logits)[0]                              # (Tq, V)
    drawn = None
    if temperature:
        allowed = np.ones(logits.shape[1:], bool)
        allowed[[config.pad, config.bos, *translator.never]] = False
        drawn = softmax_forward(logits.astype(np.float64) / temperature, allowed)[0]

    def described(t, i):
        return {
            "token": translator.token(i), "p": rounded(p[t, i]), "drawn": None if drawn is None else rounded(drawn[t, i])
        }

    order = np.argsort(-p, axis=1, kind="stable")[:, :TOP].tolist()
    return [described(t, i) | {"top": [described(t, each) for each in order[t]]} for t, i in enumerate(ids.tolist())]


def _source(translator, text):
    """The ids of a sentence, (1, Tk); refuses what is no sentence."""
    if not isinstance(text, str) or not translator.tokens(text):
        raise ValueError(_("expected a sentence, got {text!r}: it has no tokens to attend to", text=text))
    ids = translator.encode(text)
    if len(ids) > LONGEST:
        raise ValueError(_("expected a sentence of at most {most} tokens, got {got}: a longer one would not fit on the page",
                           most=LONGEST - 1, got=len(ids) - 1))
    return np.array([ids])


def _whole(least, most, **number):
    """Refuse a number that is not a whole one from least to most."""
    ((name, value),) = number.items()
    if type(value) is not int or not least <= value <= most:
        raise ValueError(_("expected {name} to be a whole number from {least} to {most}, got {value!r}",
                           name=name, least=least, most=most, value=value))


FUNCTIONS = {"translator": described_translator, "translate": translate, "gradient": gradient}
