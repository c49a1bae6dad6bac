"""The encoder-decoder Transformer: PyTorch's numbers, article A's conventions, invariants on every config, and what a fresh
model should look like."""
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tinymae import blocks, init, masks, tree
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal, assert_pad_invariant
from tinymae.models import transformer
from tinymae.models.transformer import (
    TransformerConfig,
    decode,
    encode,
    to_vocabulary,
    transformer_backward,
    transformer_forward,
    transformer_init,
)
from tinymae.ops.losses import cross_entropy_forward
from tinymae.train.optim import AdamW

# PyTorch ---------------------------------------------------------------------------------------------------------------

with np.load(Path(__file__).parent / "golden" / "transformer.npz") as file:
    GOLDEN = dict(file)
POST = TransformerConfig(
    src_vocab=11, tgt_vocab=11, d_model=12, encoder_layers=2, decoder_layers=2, heads=3, d_ff=20, dropout=0.0, final_norm=True
)
CASES = {"post": POST, "pre": replace(POST, src_vocab=9, tie="none", norm_first=True, activation="gelu")}
DTYPES = {np.float64: 1e-12, np.float32: 1e-5}


def golden_tree(prefix, config, dtype):
    flat = {key.removeprefix(prefix): leaf.astype(dtype) for key, leaf in GOLDEN.items() if key.startswith(prefix)}
    return tree.unflatten(flat, transformer_init(config, None))


def check(name, ours, reference):
    """Close, relative to the largest number of the reference, and of the dtype under test."""
    ours = np.asarray(ours)
    assert ours.shape == reference.shape, name
    # a key's bias moves all scores of a query alike, softmax ignores it, its gradient is zero but for rounding
    scale = 1.0 if name.endswith("k.b") else np.abs(reference).max()
    error = np.abs(ours - reference).max() / scale
    assert error < DTYPES[ours.dtype.type], f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "smoothing"), [("plain", 0.0), ("smooth", 0.1)])
@pytest.mark.parametrize("case", CASES)
def test_pytorch(case, name, smoothing, dtype):
    config = CASES[case]
    params = golden_tree(f"{case}.param.", config, dtype)
    loss, cache = transformer_forward(GOLDEN["src"], GOLDEN["targets"], params, config, label_smoothing=smoothing)
    assert loss.dtype == dtype
    check("loss", loss, GOLDEN[f"{case}.{name}.loss"])
    check("logits", cache["logits"], GOLDEN[f"{case}.logits"])
    ours = dict(tree.leaves(transformer_backward(1.0, cache)))
    reference = dict(tree.leaves(golden_tree(f"{case}.{name}.grad.", config, np.float64)))
    assert ours.keys() == reference.keys()
    for path, gradient in ours.items():
        assert gradient.dtype == dtype, path
        check(path, gradient, reference[path])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_pytorch_thirty_steps(case, dtype):
    config = CASES[case]
    params = tree.map(lambda leaf: leaf.copy(), golden_tree(f"{case}.param.", config, dtype))
    optimizer = AdamW(params, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for _ in range(30):
        loss, cache = transformer_forward(GOLDEN["src"], GOLDEN["targets"], params, config, label_smoothing=0.1)
        losses.append(loss)
        optimizer.step(params, transformer_backward(1.0, cache), lr=1e-3)
    assert losses[-1] < losses[0] - 0.5
    check("losses", np.array(losses), GOLDEN[f"{case}.losses"])


# Sizes -----------------------------------------------------------------------------------------------------------------

def test_parameters_of_the_base_model():
    """By hand, from the paper's section 3; its table 3 says 65 M and does not say what it counts."""
    attention = 4 * (512 * 512 + 512)                           # W_Q, W_K, W_V, W_O of eight heads of 64, and biases
    feed_forward = (512 * 2048 + 2048) + (2048 * 512 + 512)
    norm = 2 * 512
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (2 * attention + feed_forward + 3 * norm)
    embedding = 37000 * 512                                     # source, target and output are one
    assert (encoder, decoder, embedding) == (18_914_304, 25_224_192, 18_944_000)
    ours = tree.count(transformer_init(TransformerConfig(), None))
    assert ours == encoder + decoder + embedding == 63_082_496


def test_parameters_of_pytorch():
    base = TransformerConfig(final_norm=True)
    assert tree.count(transformer_init(base, None)) == GOLDEN["count.all"]
    apart = replace(base, tie="none", src_vocab=7801, tgt_vocab=5959)
    assert tree.count(transformer_init(apart, None)) == GOLDEN["count.none"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_have_the_shapes_of_random_parameters(dtype):
    for config in CONFIGS.values():
        zeros, drawn = (transformer_init(config, rng, dtype) for rng in (None, np.random.default_rng(0)))
        tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, dtype)), zeros, drawn)


# Article A's conventions -----------------------------------------------------------------------------------------------
# Attention without biases, d_k and d_v of its own, LayerNorm (eps 1e-6) and residual inside each sublayer, its positions.

def norm_a(x, p):
    return p["gamma"] * (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-6) + p["beta"]


def attention_a(xq, xkv, mask, p, norm, heads, d_k, d_v):
    """One sentence: xq (Tq, D), xkv (Tk, D), mask (Tq, Tk), head by head and query by query."""
    out = []
    for t in range(len(xq)):
        concatenated = []
        for h in range(heads):
            w_q, w_k = (p[name]["w"][:, h * d_k : (h + 1) * d_k] for name in "qk")
            w_v = p["v"]["w"][:, h * d_v : (h + 1) * d_v]
            scores = [xq[t] @ w_q @ (word @ w_k) / math.sqrt(d_k) for word in xkv]      # the temperature is sqrt(d_k)
            scores = [s if allowed else -1e9 for s, allowed in zip(scores, mask[t], strict=True)]   # masked_fill(mask == 0)
            weights = [math.exp(s - max(scores)) for s in scores]
            concatenated += list(sum(w / sum(weights) * (word @ w_v) for w, word in zip(weights, xkv, strict=True)))
        out.append(norm_a(np.array(concatenated) @ p["out"]["w"] + xq[t], norm))
    return np.array(out)


def feed_forward_a(x, p, norm):
    hidden = [np.maximum(row @ p["fc1"]["w"] + p["fc1"]["b"], 0) for row in x]
    return np.array([norm_a(h @ p["fc2"]["w"] + p["fc2"]["b"] + row, norm) for h, row in zip(hidden, x, strict=True)])


def embed_a(ids, table, width):
    x = np.array([table[i] * math.sqrt(width) for i in ids])
    for pos, j in product(range(1, len(ids)), range(width)):    # row 0 stays without
        x[pos, j] += (math.cos if j % 2 else math.sin)(pos / 10000 ** (2 * j / width))
    return x


def loss_a(src, targets, params, config):
    sizes = config.heads, config.d_k, config.d_v
    losses = []
    for source, target in zip(src, targets, strict=True):
        inputs = [config.bos, *target[:-1]]
        x = embed_a(source, params["src_embed"], config.d_model)
        for p in params["encoder"]["blocks"]:
            x = attention_a(x, x, [[k != 0 for k in source]] * len(source), p["attn"], p["ln1"], *sizes)
            x = feed_forward_a(x, p["ffn"], p["ln2"])
        y = embed_a(inputs, params["tgt_embed"], config.d_model)
        for p in params["decoder"]["blocks"]:
            past = [[j <= t and k != 0 for j, k in enumerate(inputs)] for t in range(len(inputs))]
            y = attention_a(y, y, past, p["self_attn"], p["ln1"], *sizes)
            y = attention_a(y, x, [[k != 0 for k in source]] * len(inputs), p["cross_attn"], p["ln2"], *sizes)
            y = feed_forward_a(y, p["ffn"], p["ln3"])
        for word, row in zip(target, y, strict=True):
            if word != 0:
                logits = row @ params["out"]["w"] + params["out"]["b"]
                losses.append(math.log(sum(math.exp(z) for z in logits)) - logits[word])
    return sum(losses) / len(losses)


ARTICLE_A = TransformerConfig(
    src_vocab=9, tgt_vocab=11, d_model=8, encoder_layers=2, decoder_layers=2, heads=2, d_ff=7, d_k=3, d_v=5, dropout=0.0,
    bias=False, eps=1e-6, tie="none", position_encoding="article_a",
)
SRC = np.array([[4, 7, 3, 5, 2], [6, 3, 2, 0, 0], [8, 2, 0, 0, 0]])
TARGETS = np.array([[5, 3, 8, 2, 0, 0], [4, 10, 2, 0, 0, 0], [9, 6, 7, 6, 3, 2]])


def noisy(config, seed=0, dtype=np.float64):
    """Parameters as after some training: no gamma is 1, no bias 0."""
    rng = np.random.default_rng(seed)
    params = transformer_init(config, rng, dtype)
    return tree.map(lambda leaf: leaf + rng.normal(0, 0.2, leaf.shape).astype(dtype), params)


def test_article_a():
    params = noisy(ARTICLE_A)
    assert not [path for path, _ in tree.leaves(params) if "attn" in path and path.endswith(".b")]
    loss, _ = transformer_forward(SRC, TARGETS, params, ARTICLE_A)
    expected = loss_a(SRC, TARGETS, params, ARTICLE_A)
    assert loss == pytest.approx(expected, rel=1e-12)
    for other in ({"eps": 1e-5}, {"norm_first": True}, {"position_encoding": "interleaved"}, {"scale_embedding": False}):
        loss, _ = transformer_forward(SRC, TARGETS, params, replace(ARTICLE_A, **other))
        assert loss != pytest.approx(expected, rel=1e-9), other


@pytest.mark.parametrize(("options", "message"), [
    ({}, "a multiple of 5 heads, got 12: or give d_k, d_v"),
    ({"d_v": 3}, "a multiple of 5 heads, got 12: or give d_k, d_v"),
    ({"d_k": 3}, "a multiple of 5 heads, got 12: or give d_k, d_v"),
    ({"d_k": 3, "d_v": 0}, "d_k and d_v of at least 1, got 3 and 0"),
    ({"d_k": 0, "d_v": 3}, "d_k and d_v of at least 1, got 0 and 3"),
    ({"d_k": 2, "d_v": 3, "fused": True}, "d_k equal to d_v in a fused projection, got 2 and 3"),
])
def test_sizes_that_make_no_attention(options, message):
    with pytest.raises(ValueError, match=message):
        init.multi_head_attention(12, 5, None, **options)


def test_one_big_matrix_is_h_small_ones():
    """Article C: h projections of width d_k are the columns of one matrix, and W_O of the concat is a sum over heads."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 12))
    mask = masks.causal_mask(5)
    p = init.multi_head_attention(12, 3, rng, dtype=np.float64)
    together, cache = blocks.multi_head_attention_forward(x, x, p, 3, mask)
    apart = 0
    for h in range(3):
        columns = slice(4 * h, 4 * h + 4)
        small = {name: {"w": p[name]["w"][:, columns], "b": p[name]["b"][columns]} for name in "qkv"}
        small["out"] = {"w": p["out"]["w"][columns]}            # this head's rows of W_O
        y, head = blocks.multi_head_attention_forward(x, x, small, 1, mask)
        apart = apart + y
        weights = blocks.attention_weights(cache)[:, h]
        np.testing.assert_allclose(blocks.attention_weights(head)[:, 0], weights, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(apart + p["out"]["b"], together, rtol=1e-12, atol=1e-14)


# Invariants, on every config -------------------------------------------------------------------------------------------

def all_configs():
    base = TransformerConfig(
        src_vocab=11, tgt_vocab=11, d_model=8, encoder_layers=2, decoder_layers=2, heads=2, d_ff=10, max_len=12
    )
    found = {}
    encodings = (*transformer.POSITION_ENCODINGS, "learned")
    for norm_first, tie, positions in product((False, True), ("all", "output", "none"), encodings):
        name = f"{'pre' if norm_first else 'post'}-{tie}-{positions}"
        src_vocab = 11 if tie == "all" else 9
        found[name] = replace(base, norm_first=norm_first, tie=tie, position_encoding=positions, src_vocab=src_vocab)
    return found


CONFIGS = all_configs()
INPUTS = masks.shift_right(TARGETS, 1)


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def say(src, inputs, params, config):
    """Logits (B, Tq, V)."""
    memory, _ = encode(src, params, config)
    x, _ = decode(inputs, memory, src, params, config)
    return to_vocabulary(x, params, config)[0]


def with_row(params, names, pad, content):
    """params with `content` in the row of the padding's id: the content of the padding reaches the embedding that way."""
    changed = dict(params)
    for name in names:
        changed[name] = params[name].copy()
        changed[name][pad] = content
    return changed


def source_says(params, config):
    """function(ids, mask) for `assert_pad_invariant`: padding of the source."""
    table = "embed" if config.tie == "all" else "src_embed"

    def function(ids, mask):
        filled = with_row(params, [table], config.pad, params[table][ids[~mask]].sum(axis=0))
        src = np.where(mask, ids, config.pad)
        memory, _ = encode(src, filled, config)
        x, _ = decode(INPUTS, memory, src, filled, config)
        return np.concatenate([memory[mask], x[TARGETS != 0]])

    return function


def target_says(params, config):
    """The same for padding of what the decoder is fed."""
    table = "embed" if config.tie == "all" else "tgt_embed"
    memory, _ = encode(SRC, params, config)

    def function(ids, mask):
        filled = with_row(params, [table], config.pad, params[table][ids[~mask]].sum(axis=0))
        x, _ = decode(np.where(mask, ids, config.pad), memory, SRC, filled, config)
        return x[mask]

    return function


def check_causal(params, config):
    assert_causal(lambda inputs: say(SRC, inputs, params, config), INPUTS)


def check_source_padding(params, config):
    assert_pad_invariant(source_says(params, config), np.where(SRC == 0, 4, SRC), SRC != 0)


def check_target_padding(params, config):
    assert_pad_invariant(target_says(params, config), np.where(INPUTS == 0, 4, INPUTS), INPUTS != 0)


def check_batch(params, config):
    assert_batch_independent(lambda src, inputs: say(src, inputs, params, config), SRC, INPUTS)


@pytest.mark.parametrize("rule", [check_causal, check_source_padding, check_target_padding, check_batch])
def test_invariants(rule, config):
    rule(noisy(config, dtype=np.float32), config)


def one_word_too_far(length):
    return np.tri(length, k=1, dtype=bool)


def no_causal_mask(length):
    return np.ones((length, length), bool)


def no_mask(ids, pad=0):
    return np.ones((len(ids), 1, 1, ids.shape[1]), bool)


def first_mask_for_all(ids, pad=0):
    return np.broadcast_to(masks.padding_mask(ids[:1], pad), (len(ids), 1, 1, ids.shape[1]))


@pytest.mark.parametrize(("rule", "leak", "complaint"), [
    (check_causal, {"causal_mask": no_causal_mask}, "the tokens from position 1 on reach an earlier output"),
    (check_causal, {"causal_mask": one_word_too_far}, "reach an earlier output"),
    (check_source_padding, {"padding_mask": no_mask}, "the content of the padding reaches the output"),
    (check_target_padding, {"causal_mask": no_causal_mask}, "the content of the padding reaches the output"),
    (check_batch, {"padding_mask": first_mask_for_all}, "example 1 gives one result in its batch"),
], ids=["no causal mask", "one word too far", "no padding mask", "no mask for the target", "one mask for all"])
def test_invariants_find_a_planted_leak(rule, leak, complaint, config, monkeypatch):
    params = noisy(config, dtype=np.float32)
    for name, planted in leak.items():
        monkeypatch.setattr(transformer, name, planted)
    with pytest.raises(AssertionError, match=complaint):
        rule(params, config)


def test_the_causal_mask_hides_the_padding_behind_a_sentence(config, monkeypatch):
    """With a padding mask on top, the loss and every gradient are the same numbers, bit by bit."""
    params = noisy(config)
    loss, cache = transformer_forward(SRC, TARGETS, params, config)
    gradient = transformer_backward(1.0, cache)
    monkeypatch.setattr(transformer, "causal_mask", lambda length: masks.causal_padding_mask(INPUTS))
    again, cache = transformer_forward(SRC, TARGETS, params, config)
    assert loss == again
    tree.map(np.testing.assert_array_equal, gradient, transformer_backward(1.0, cache))


def test_causal_takes_numbers_too():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert_causal(lambda x: np.cumsum(x, axis=1), x)
    with pytest.raises(AssertionError, match="from position 1 on reach an earlier output"):
        assert_causal(lambda x: x - x.mean(axis=1, keepdims=True), x)
    with pytest.raises(AssertionError, match="from position 4 on reach an earlier output"):
        assert_causal(lambda x: x + 1e-9 * np.where(np.arange(5) == 3, x[:, 4:, 0], 0)[..., None], x)


def test_causal_finds_a_function_that_sees_nothing():
    with pytest.raises(AssertionError, match="from position 1 on reach no output at all"):
        assert_causal(lambda ids: np.zeros(ids.shape), INPUTS)


def test_causal_wants_something_later():
    with pytest.raises(ValueError, match=r"at least two tokens, got ids \(3, 1\)"):
        assert_causal(abs, INPUTS[:, :1])
    with pytest.raises(ValueError, match=r"at least two different ids, got \[7\] only"):
        assert_causal(abs, np.full((2, 3), 7))
    with pytest.raises(ValueError, match=r"expected \(3, 6\) rows, one for each token, got \(3,\)"):
        assert_causal(lambda ids: ids.sum(axis=1), INPUTS)


def mean_of_words(x, mask):
    return (x * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]


def test_pad_invariant_takes_numbers_too():
    x = np.random.default_rng(0).normal(size=(3, 5, 2))
    mask = SRC != 0
    assert_pad_invariant(mean_of_words, x, mask)
    with pytest.raises(AssertionError, match="the content of the padding reaches the output"):
        assert_pad_invariant(lambda x, mask: x.mean(axis=1), x, mask)
    with pytest.raises(AssertionError, match="two more positions of padding reach the output"):
        assert_pad_invariant(lambda x, mask: mean_of_words(x, mask) / x.shape[1], x, mask)
    with pytest.raises(AssertionError, match="the tokens do not reach the output: is the mask inverted"):
        assert_pad_invariant(lambda x, mask: np.ones((3, 2)), x, mask)
    with pytest.raises(AssertionError, match="content of the padding reaches"):
        assert_pad_invariant(lambda x, mask: mean_of_words(x, ~mask | mask[:, :1]), x, mask)


@pytest.mark.parametrize("mask", [SRC > -1, SRC < 0], ids=["all", "none"])
def test_pad_invariant_wants_something_to_hide(mask):
    with pytest.raises(ValueError, match="some tokens and some padding"):
        assert_pad_invariant(lambda ids, mask: ids, SRC, mask)


def test_pad_invariant_wants_what_the_words_say():
    with pytest.raises(ValueError, match=r"got \(3, 5\), and \(3, 7\) for two more positions: return output\[mask\]"):
        assert_pad_invariant(lambda ids, mask: np.where(mask, ids, 0.0), SRC, SRC != 0)


def test_without_positions_the_source_is_a_bag_of_words():
    """Permuting the words permutes the memory, and what the decoder says does not change; with positions both do."""
    config = CONFIGS["post-none-learned"]
    params = noisy(config)
    order = np.array([3, 0, 4, 2, 1])
    for table, alike in ((np.zeros_like(params["src_positions"]), True), (params["src_positions"], False)):
        bag = params | {"src_positions": table}
        memory, shuffled = (encode(src, bag, config)[0] for src in (SRC, SRC[:, order]))
        assert np.allclose(memory[:, order], shuffled, rtol=0, atol=1e-12) == alike
        said, again = (say(src, INPUTS, bag, config) for src in (SRC, SRC[:, order]))
        assert np.allclose(said, again, rtol=0, atol=1e-12) == alike


# Embeddings and loss ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tie", ["output", "none"])
def test_one_matrix_is_the_others_made_equal(tie):
    """Tied three ways: with equal matrices the loss is the same, and the gradient of one matrix is the sum of its uses'."""
    config = replace(CONFIGS["post-all-interleaved"], dropout=0.0)
    params = noisy(config)
    apart = {key: leaf for key, leaf in params.items() if key != "embed"}
    apart |= {"src_embed": params["embed"], "tgt_embed": params["embed"]}
    if tie == "none":
        apart["out"] = {"w": params["embed"].T.copy(), "b": np.zeros(11)}
    loss, cache = transformer_forward(SRC, TARGETS, params, config, label_smoothing=0.1)
    other, other_cache = transformer_forward(SRC, TARGETS, apart, replace(config, tie=tie), label_smoothing=0.1)
    assert loss == pytest.approx(other, rel=1e-12)
    one, parts = transformer_backward(1.0, cache), transformer_backward(1.0, other_cache)
    total = parts["src_embed"] + parts["tgt_embed"] + (parts["out"]["w"].T if tie == "none" else 0)
    np.testing.assert_allclose(one["embed"], total, rtol=1e-12, atol=1e-14)


def test_the_scale_of_the_embedding():
    """sqrt(D) is a factor of the rows that are looked up: without it, rows that are larger by sqrt(D) do the same."""
    config = CONFIGS["post-none-interleaved"]
    params = noisy(config)
    larger = params | {name: params[name] * math.sqrt(8) for name in ("src_embed", "tgt_embed")}
    scaled, plain = say(SRC, INPUTS, params, config), say(SRC, INPUTS, larger, replace(config, scale_embedding=False))
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)


def test_a_sentence_may_start_with_the_id_of_the_padding(config):
    """bos = pad, as in Marian's models: the same as a <bos> of its own with the padding's row, and not hidden."""
    params = noisy(config)
    table = "embed" if config.tie == "all" else "tgt_embed"
    alike = with_row(params, [table], config.bos, params[table][config.pad])
    fed = replace(config, bos=config.pad)
    said = say(SRC, masks.shift_right(TARGETS, fed.bos), params, fed)
    expected = say(SRC, INPUTS, alike, config)
    keep = np.arange(11) != config.bos                          # a tied output says <bos> with that row
    np.testing.assert_allclose(said[..., keep], expected[..., keep], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tie", ["all", "output"])
def test_a_bias_on_a_tied_output(tie):
    """Added to every logit; with a tie alone there is none, and an output of its own always has one."""
    config = replace(CONFIGS[f"pre-{tie}-halves"], output_bias=True, dropout=0.0)
    params = noisy(config)
    assert params["out"].keys() == {"b"}
    without = {key: leaf for key, leaf in params.items() if key != "out"}
    plain = say(SRC, INPUTS, without, replace(config, output_bias=False))
    np.testing.assert_allclose(say(SRC, INPUTS, params, config), plain + params["out"]["b"], rtol=1e-12, atol=1e-14)
    _, cache = transformer_forward(SRC, TARGETS, params, config)
    softmax = np.exp(cache["logits"]) / np.exp(cache["logits"]).sum(axis=1, keepdims=True)
    expected = (softmax - np.eye(11)[cache["targets"]]).mean(axis=0)
    np.testing.assert_allclose(transformer_backward(1.0, cache)["out"]["b"], expected, rtol=1e-12, atol=1e-15)


def test_padding_costs_nothing_and_counts_nothing(config):
    params = noisy(config)
    loss, cache = transformer_forward(SRC, TARGETS, params, config, label_smoothing=0.1)
    logits = say(SRC, INPUTS, params, config)
    whole, _ = cross_entropy_forward(logits, TARGETS, ignore_index=0, label_smoothing=0.1)
    assert loss == pytest.approx(whole, rel=1e-12)
    assert cache["logits"].shape == (13, 11)                    # 13 of 18 targets are words: the product has 13 rows
    np.testing.assert_array_equal(cache["targets"], TARGETS[TARGETS != 0])
    np.testing.assert_allclose(cache["logits"], logits[TARGETS != 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("tie", ["all", "output", "none"])
def test_a_fresh_model_knows_nothing(tie, norm_first):
    """The first loss is near ln V: every word is about as likely as another. Far from it, something is wrong."""
    config = TransformerConfig(
        src_vocab=500, tgt_vocab=500, d_model=32, encoder_layers=2, decoder_layers=2, heads=4, d_ff=64, tie=tie,
        norm_first=norm_first,
    )
    rng = np.random.default_rng(0)
    src, targets = rng.integers(3, 500, (2, 16, 10))
    loss, _ = transformer_forward(src, targets, transformer_init(config, rng), config)
    assert abs(loss - math.log(500)) < 1, loss


def test_dropout_is_drawn_from_the_generator_that_is_passed():
    config = CONFIGS["post-all-interleaved"]
    params = noisy(config)

    def loss(seed):
        return transformer_forward(SRC, TARGETS, params, config, rng=None if seed is None else np.random.default_rng(seed))[0]

    assert loss(1) == loss(1)
    assert len({loss(1), loss(2), loss(None)}) == 3
    assert loss(None) == transformer_forward(SRC, TARGETS, params, replace(config, dropout=0.0))[0]


def test_dropout_on_the_sum_of_embedding_and_position():
    """The paper's section 5.4: an encoder without layers shows it, each number is dropped or scaled by 1 / (1 - rate)."""
    config = replace(CONFIGS["post-all-interleaved"], encoder_layers=0, dropout=0.4)
    params = noisy(config)
    plain, dropped = (encode(SRC, params, config, rng=rng)[0] for rng in (None, np.random.default_rng(0)))
    assert 0.2 < (dropped == 0).mean() < 0.6
    np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, plain / 0.6), rtol=1e-12)


def test_renaming_the_words_changes_nothing():
    """Ids are names: with other ids, those of padding and <bos> too, and the rows of the matrix moved, the loss is the same."""
    config = CONFIGS["pre-all-halves"]
    params = noisy(config)
    name = np.random.default_rng(1).permutation(11)
    assert (name != np.arange(11))[:3].all()
    renamed = params | {"embed": params["embed"][np.argsort(name)]}
    other = replace(config, pad=int(name[0]), bos=int(name[1]), eos=int(name[2]))
    loss, _ = transformer_forward(SRC, TARGETS, params, config, label_smoothing=0.1)
    again, _ = transformer_forward(name[SRC], name[TARGETS], renamed, other, label_smoothing=0.1)
    assert again == pytest.approx(loss, rel=1e-12)


def test_attention_can_be_looked_at():
    config = CONFIGS["pre-output-halves"]
    _, cache = transformer_forward(SRC, TARGETS, noisy(config), config)
    for i in range(2):
        encoder, decoder = cache["encoder"]["encoder"]["blocks"][i], cache["decoder"]["decoder"]["blocks"][i]
        shapes = {(3, 2, 5, 5): encoder["attn"], (3, 2, 6, 6): decoder["self_attn"], (3, 2, 6, 5): decoder["cross_attn"]}
        for shape, attention in shapes.items():
            weights = blocks.attention_weights(attention["sublayer"])
            assert weights.shape == shape
            np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-12)
        assert not blocks.attention_weights(decoder["cross_attn"]["sublayer"])[2, ..., 2:].any()    # "x <eos>", then padding


# Errors ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "message"), [
    ({"tie": "both"}, "expected tie 'all', 'output' or 'none', got 'both'"),
    ({"tgt_vocab": 100}, "one vocabulary for tie='all', got 37000 and 100 tokens"),
    ({"position_encoding": "rotary"}, "expected position_encoding interleaved, halves, article_a or learned, got 'rotary'"),
    ({"heads": 7}, "expected d_model to be a multiple of 7 heads, got 512: or give d_k, d_v"),
    ({"heads": 7, "d_k": 64}, "multiple of 7 heads"),
    ({"heads": 7, "d_v": 64}, "multiple of 7 heads"),
    ({"decoder_layers": 0}, "expected at least one decoder layer, got 0: no other part attends to the source"),
    ({"encoder_layers": -1}, "expected encoder_layers to be a whole number of at least 0, got -1"),
    ({"heads": 0}, "heads to be a whole number of at least 1, got 0"),
    *(({name: 0}, f"{name} to be .* at least 1, got 0") for name in ("src_vocab", "tgt_vocab", "d_model", "d_ff", "max_len")),
    ({"dropout": 1.0}, r"dropout to be a number in \[0, 1\), got 1\.0: it is the fraction to drop"),
    ({"dropout": -0.1}, r"dropout to be a number in \[0, 1\), got -0\.1"),
])
def test_wrong_configs(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**options)


def test_right_configs():
    TransformerConfig(tgt_vocab=100, tie="output")
    TransformerConfig(heads=7, d_k=64, d_v=64)
    for norm_first, final_norm, expected in [
        (False, None, False), (True, None, True), (False, True, True), (True, False, False),
    ]:
        config = TransformerConfig(norm_first=norm_first, final_norm=final_norm)
        assert config.has_final_norm == expected
        params = transformer_init(config, None)
        assert ("norm" in params["encoder"], "norm" in params["decoder"]) == (expected, expected)


@pytest.mark.parametrize(("src", "targets", "error", "message"), [
    (SRC[0], TARGETS, ValueError, r"expected src \(B, Tk\) and targets \(B, Tq\), got \(5,\) and \(3, 6\)"),
    (SRC[:2], TARGETS, ValueError, r"got \(2, 5\) and \(3, 6\)"),
    (SRC, TARGETS * 0, ValueError, r"expected targets to hold tokens, got padding \(0\) only"),
    (SRC * 1.0, TARGETS, TypeError, "expected ids to be an array of integers, got float64"),
    (SRC + 8, TARGETS, IndexError, r"expected ids in \[0, 9\), got \[8, 16\]: was the text encoded with another vocabulary"),
    (SRC, TARGETS + 4, IndexError, r"\[0, 11\)"),
    (np.ones((3, 13), int), TARGETS, ValueError, "a learned table ends at the longest"),
])
def test_wrong_sentences(src, targets, error, message):
    config = CONFIGS["post-none-learned"]
    with pytest.raises(error, match=message):
        transformer_forward(src, targets, noisy(config), config)
