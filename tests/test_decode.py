"""Decoding: the cached decoder against the model itself, the searches against each other and against all sentences."""
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tinymae import tree
from tinymae.blocks import attention_weights
from tinymae.models import decoding
from tinymae.models.decoding import Decoded, State, beam_search, greedy, sample
from tinymae.models.transformer import (
    TransformerConfig,
    decode,
    encode,
    to_vocabulary,
    transformer_forward,
    transformer_init,
)

PAD, BOS, EOS = 0, 1, 2
SMALL = TransformerConfig(src_vocab=9, tgt_vocab=9, d_model=8, encoder_layers=1, decoder_layers=2, heads=2, d_ff=12, max_len=32)
CONFIGS = {
    "paper": SMALL,
    "pre-norm, gelu": replace(SMALL, norm_first=True, activation="gelu"),
    "pre-norm, no final norm": replace(SMALL, norm_first=True, final_norm=False, activation="gelu_tanh"),
    "post-norm, final norm": replace(SMALL, final_norm=True),
    "learned": replace(SMALL, position_encoding="learned", tie="output"),
    "halves": replace(SMALL, position_encoding="halves", norm_first=True, eps=1e-3),
    "d_k, d_v": replace(SMALL, d_model=10, heads=3, d_k=4, d_v=2, tie="none", tgt_vocab=7),
    "starts with padding, output bias": replace(SMALL, pad=1, output_bias=True, tie="output"),
    "unscaled, no bias": replace(SMALL, scale_embedding=False, bias=False, eps=1e-3, tie="none", src_vocab=5),
}


def model(config=SMALL, seed=0, scale=1.0):
    """Random parameters, float64: no bias is 0, no gain is 1; a larger scale makes the model surer of its words."""
    rng = np.random.default_rng(seed)
    params = tree.map(lambda x: x + rng.normal(0, 0.2, x.shape), transformer_init(config, rng, np.float64))
    for name in ("embed", "tgt_embed"):
        if name in params:
            params[name] *= scale
    return params


def sources(config=SMALL, batch=5, length=6, seed=0):
    """Sentences of several lengths, the first a full one."""
    rng = np.random.default_rng(seed)
    src = rng.integers(3, config.src_vocab, (batch, length))
    ends = np.concatenate([[length], rng.integers(1, length + 1, batch - 1)])
    return np.where(np.arange(length) < ends[:, None], src, config.pad)


def by_the_model(src, ids, params, config):
    """(logits (M, V), words (M,), sentence of each (M,), cross, self-attention): what the uncached model says to ids."""
    _, cache = transformer_forward(src, ids, params, config)
    blocks = cache["decoder"]["decoder"]["blocks"]
    cross, back = (
        np.stack([attention_weights(b[name]["sublayer"]) for b in blocks], axis=1) for name in ("cross_attn", "self_attn")
    )
    return cache["logits"], cache["targets"], np.nonzero(ids != config.pad)[0], cross, back


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def assert_true_to_the_model(found, src, params, config, atol=1e-12):
    """log_probs and both attentions are the uncached model's; behind the end there is no attention."""
    logits, words, rows, cross, back = by_the_model(src, found.ids, params, config)
    each = log_softmax(logits)[np.arange(len(words)), words]
    np.testing.assert_allclose(found.log_probs, np.bincount(rows, each, len(src)), rtol=0, atol=atol)
    said = (found.ids != config.pad)[:, None, None, :, None]
    np.testing.assert_allclose(found.cross, cross * said, rtol=0, atol=atol)
    np.testing.assert_allclose(found.self_attention, back * said, rtol=0, atol=atol)


def assert_same(a, b, atol=1e-12):
    assert a.ids.tolist() == b.ids.tolist()
    for x, y in zip(a[1:], b[1:], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def assert_well_formed(ids, config=SMALL):
    """Words, at most one <eos>, then nothing but padding; no <bos>."""
    for row in ids.tolist():
        end = row.index(config.eos) + 1 if config.eos in row else len(row)
        assert not {config.pad, config.bos} & set(row[:end])
        assert set(row[end:]) <= {config.pad}


def searches(src, params, config, max_len=None):
    return {
        "greedy": greedy(src, params, config, max_len=max_len),
        "beam": beam_search(src, params, config, beam=3, max_len=max_len),
        "sample": sample(src, params, config, rng=np.random.default_rng(3), max_len=max_len),
    }


# ---- the cache -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_step_gives_the_logits_of_the_uncached_model(config):
    params, src = model(config), sources(config)
    fed = np.random.default_rng(1).integers(0, config.tgt_vocab, (len(src), 7))             # any ids, padding's too
    state = State(src, params, config, length=7)
    logits = np.stack([state.step(word)[0] for word in fed.T], axis=1)
    x, _ = decode(fed, encode(src, params, config)[0], src, params, config)
    np.testing.assert_allclose(logits, to_vocabulary(x, params, config)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_log_probs_and_attention_are_those_of_the_uncached_model(config):
    for seed in range(3):
        params, src = model(config, seed, scale=2), sources(config, seed=seed)
        for found in searches(src, params, config, max_len=9).values():
            assert_true_to_the_model(found, src, params, config)
            assert_well_formed(found.ids, config)


def test_float32_stays_float32():
    params = tree.map(np.float32, model(scale=2))
    for found in searches(sources(), params, SMALL, max_len=6).values():
        assert found.cross.dtype == found.self_attention.dtype == np.float32
        assert_true_to_the_model(found, sources(), params, SMALL, atol=1e-4)


@pytest.mark.parametrize("batch", [64, 65, 130])
def test_every_sentence_of_a_large_batch_has_its_own_memory(batch):
    """Sentences are encoded 64 at a time: each attends to its own source, also the 65th and the last of a third part."""
    params, src = model(), sources(batch=batch)
    state = State(src, params, SMALL, length=1)
    ids = np.full((batch, 1), BOS)
    x, _ = decode(ids, encode(src, params, SMALL)[0], src, params, SMALL)
    np.testing.assert_allclose(state.step(ids[:, 0])[0], to_vocabulary(x[:, 0], params, SMALL)[0], rtol=0, atol=1e-12)
    assert len(np.unique(src[-3:], axis=0)) > 1
    assert_true_to_the_model(greedy(src, params, SMALL, max_len=3), src, params, SMALL)
    last = beam_search(src, params, SMALL, beam=2, max_len=3).ids[-1]
    np.testing.assert_array_equal(last, beam_search(src[-1:], params, SMALL, beam=2, max_len=3).ids[0][: len(last)])


def test_sentences_that_ended_are_computed_until_a_quarter_has(monkeypatch):
    """Fewer rows as soon as more than a quarter of them has ended, and not before: moving the rows has its price."""
    params, src, rows = model(), sources(batch=24), []
    step = State.step
    monkeypatch.setattr(State, "step", lambda self, ids: rows.append(len(ids)) or step(self, ids))
    ids = sample(src, params, SMALL, rng=np.random.default_rng(0), max_len=32).ids
    expected = [24]
    for t in range(1, ids.shape[1]):
        running = 24 - np.count_nonzero((ids[:, :t] == EOS).any(axis=1))
        expected.append(running if running < 0.75 * expected[-1] else expected[-1])
    assert rows == expected and len(set(rows)) > 2


def test_of_equal_scores_the_first_is_kept():
    scores = np.arange(400) % 3 + 0.5
    np.testing.assert_array_equal(decoding._largest(scores, 200), [*range(2, 400, 3), *range(1, 400, 3)][:200])
    np.testing.assert_array_equal(decoding._largest(np.where(scores > 1, scores, -np.inf), 399)[:2], [2, 5])
    assert list(decoding._largest(np.full(3, -np.inf), 2)) == list(decoding._largest(scores, 0)) == []


def test_the_largest_are_those_of_a_sort():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = np.round(rng.normal(size=rng.integers(1, 600)), 2)         # some are equal
        scores[rng.random(len(scores)) < 0.1] = -np.inf
        count = int(rng.integers(1, 60))
        expected = [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count] if scores[i] > -np.inf]
        assert list(decoding._largest(scores, count)) == expected


def test_choose_moves_the_past_with_its_sentence():
    params, src = model(), np.repeat(sources(batch=1), 3, axis=0)
    moved, straight = State(src[:1], params, SMALL, length=4, beam=3), State(src, params, SMALL, length=4)
    words, order = np.array([3, 4, 5]), np.array([2, 0, 2])
    moved.step(words)
    moved.choose(order)
    straight.step(words[order])
    after = np.array([6, 7, 8])
    np.testing.assert_allclose(moved.step(after)[0], straight.step(after)[0], rtol=0, atol=1e-12)


def test_parameters_and_sources_are_not_written_into():
    params, src = model(), sources()
    before = tree.map(np.copy, params), src.copy()
    for leaf in dict(tree.leaves(params)).values():
        leaf.flags.writeable = False
    src.flags.writeable = False
    searches(src, params, SMALL)
    tree.map(np.testing.assert_array_equal, params, before[0])
    np.testing.assert_array_equal(src, before[1])


# ---- the searches against each other ---------------------------------------------------------------------------------

def test_a_beam_of_one_is_greedy():
    lengths = set()
    for seed in range(30):
        config = list(CONFIGS.values())[seed % len(CONFIGS)]
        params, src = model(config, seed, scale=2), sources(config, batch=4, seed=seed)
        alone = greedy(src, params, config, max_len=8)
        assert_same(beam_search(src, params, config, beam=1, max_len=8), alone)
        lengths |= set((alone.ids != PAD).sum(axis=1).tolist())
    assert len(lengths) > 4                                     # sentences that end early, late, and not at all


@pytest.mark.parametrize("search", [greedy, beam_search], ids=["greedy", "beam"])
def test_a_batch_says_what_its_sentences_say_alone(search):
    for seed in range(8):
        params, src = model(seed=seed, scale=2), sources(seed=seed)
        together = search(src, params, SMALL, max_len=8)
        for b, sentence in enumerate(src):
            alone = search(sentence[None, sentence != PAD], params, SMALL, max_len=8)
            length, width = alone.ids.shape[1], alone.cross.shape[-1]
            assert together.ids[b, :length].tolist() == alone.ids[0].tolist()
            assert not together.ids[b, length:].any()
            np.testing.assert_allclose(together.log_probs[b], alone.log_probs[0], rtol=0, atol=1e-12)
            np.testing.assert_allclose(together.cross[b, ..., :length, :width], alone.cross[0], rtol=0, atol=1e-12)
            assert not together.cross[b, ..., width:].any()


@pytest.mark.parametrize("name", ["paper", "learned", "starts with padding, output bias"])
@pytest.mark.parametrize("search", [greedy, beam_search], ids=["greedy", "beam"])
@pytest.mark.parametrize("eos", [-50.0, -4.0])
def test_a_sentence_that_does_not_end_has_its_own_limit(name, search, eos):
    """Batches of several lengths; <eos> never, or seldom: each row is what its sentence gives alone."""
    config = replace(CONFIGS[name], tie="none", output_bias=True, max_len=19)
    lengths = set()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        params = model(config, seed, scale=2)
        params["out"]["b"][EOS] = eos
        src = sources(config, batch=4, length=int(rng.integers(4, 9)), seed=seed)
        together = search(src, params, config)
        for b, sentence in enumerate(src):
            sentence = sentence[None, sentence != config.pad]
            alone = search(sentence, params, config)
            length, width = alone.ids.shape[1], sentence.shape[1]
            limit = min(2 * width + 10, 19) if name == "learned" else 2 * width + 10
            assert length == limit if eos == -50 else length <= limit
            assert together.ids[b, :length].tolist() == alone.ids[0].tolist()
            assert (together.ids[b, length:] == config.pad).all()
            np.testing.assert_allclose(together.log_probs[b], alone.log_probs[0], rtol=1e-12, atol=1e-12)
            for part in ("cross", "self_attention"):
                found, expected = getattr(together, part)[b], getattr(alone, part)[0]
                np.testing.assert_allclose(found[:, :, :length, : expected.shape[-1]], expected, rtol=0, atol=1e-12)
                assert not found[:, :, length:].any() and not found[..., expected.shape[-1] :].any()
            lengths.add(length)
    assert len(lengths) > 1


TINY = replace(SMALL, src_vocab=5, tgt_vocab=5, decoder_layers=1)                      # <pad> <bos> <eos> and two words


def all_sentences():
    """Every sentence of at most 3 words over TINY's vocabulary, as rows padded to 3."""
    found = [[*words, EOS] for n in range(3) for words in itertools.product((3, 4), repeat=n)]
    found += [list(words) for words in itertools.product((3, 4), repeat=3)]
    return np.array([row + [PAD] * (3 - len(row)) for row in found])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_that_drops_nothing_finds_the_best_of_all_sentences(alpha):
    every, greedy_was_wrong = all_sentences(), False
    for seed in range(20):
        params, src = model(TINY, seed), sources(TINY, batch=2, seed=seed)
        found = beam_search(src, params, TINY, beam=len(every), alpha=alpha, max_len=3)
        for b, source in enumerate(src):
            logits, words, rows, *_ = by_the_model(np.repeat(source[None], len(every), axis=0), every, params, TINY)
            log_p = np.bincount(rows, log_softmax(logits)[np.arange(len(words)), words])
            best = np.argmax(log_p / ((5 + (every != PAD).sum(axis=1)) / 6) ** alpha)
            width = found.ids.shape[1]
            assert found.ids[b].tolist() == every[best, :width].tolist()
            assert not every[best, width:].any()
            np.testing.assert_allclose(found.log_probs[b], log_p[best], rtol=0, atol=1e-12)
            greedy_was_wrong |= log_p[best] > greedy(source[None], params, TINY, max_len=3).log_probs[0] + 0.01
    assert greedy_was_wrong                                     # else this test would pass for greedy decoding too


def test_a_wide_beam_does_not_need_as_many_words():
    found = beam_search(sources(TINY), model(TINY), TINY, beam=50, max_len=2)
    assert_well_formed(found.ids)
    assert found.ids.shape[1] <= 2


def beam_search_by_hand(source, params, config, beam, alpha, max_len):
    """(words, log p) of the best sentence: beginnings in a list, no cache, no batch."""
    beginnings, finished = [([], 0.0)], []
    while beginnings:
        longer = []
        for words, log_p in beginnings:
            ids = np.array([[*words, EOS]])                     # <eos> only asks for one more word: it is never fed
            next_word = log_softmax(by_the_model(source[None], ids, params, config)[0][-1])
            longer += [([*words, new], log_p + next_word[new]) for new in range(EOS, config.tgt_vocab)]
        longer = sorted(longer, key=lambda found: -found[1])[: beam - len(finished)]
        over = [found for found in longer if found[0][-1] == EOS or len(found[0]) == max_len]
        finished += over
        beginnings = [found for found in longer if found not in over]
    return max(finished, key=lambda found: found[1] / ((5 + len(found[0])) / 6) ** alpha)


@pytest.mark.parametrize("beam", [2, 3])
def test_beam_search_is_the_one_written_by_hand(beam):
    for seed in range(6):
        params, src = model(seed=seed, scale=1.5), sources(batch=3, seed=seed)
        found = beam_search(src, params, SMALL, beam=beam, alpha=4.0, max_len=6)
        for b, source in enumerate(src):
            words, log_p = beam_search_by_hand(source, params, SMALL, beam, 4.0, 6)
            assert [word for word in found.ids[b].tolist() if word != PAD] == words
            np.testing.assert_allclose(found.log_probs[b], log_p, rtol=0, atol=1e-12)


def test_of_equally_likely_words_the_first_is_taken():
    config = replace(SMALL, tie="none")
    params = model(config)
    params["out"]["w"][:] = 0
    params["out"]["b"][:] = [0, 0, -9, 0, 0, 0, 1, 0, 0]
    for beam in (1, 2, 3):
        assert beam_search(sources(), params, config, beam=beam, max_len=2).ids.tolist() == [[6, 6]] * 5
    params["out"]["b"][6] = 0
    for beam in (1, 2, 3):
        assert beam_search(sources(), params, config, beam=beam, max_len=2).ids.tolist() == [[3, 3]] * 5
    assert greedy(sources(), params, config, max_len=2).ids.tolist() == [[3, 3]] * 5


def test_a_larger_length_penalty_never_gives_a_shorter_sentence():
    grew = 0
    for seed in range(10):
        params, src = model(seed=seed, scale=1.5), sources(seed=seed)
        found = [beam_search(src, params, SMALL, beam=4, alpha=alpha, max_len=8) for alpha in (0.0, 0.5, 1.0, 3.0)]
        lengths = np.array([(f.ids != PAD).sum(axis=1) for f in found])
        assert (np.diff(lengths, axis=0) >= 0).all()
        assert (np.diff([f.log_probs for f in found], axis=0) <= 1e-12).all()          # paid for with probability
        grew += int((lengths[-1] > lengths[0]).sum())
    assert grew > 0


# ---- the end ---------------------------------------------------------------------------------------------------------

def test_pad_and_bos_are_never_said_even_where_they_are_the_likeliest():
    config = replace(SMALL, tie="none")
    params = model(config)
    params["out"]["b"][[PAD, BOS]] += 20
    for found in searches(sources(), params, config, max_len=5).values():
        assert_well_formed(found.ids)
        assert (found.log_probs < -15).all()                    # the probability is the model's: it wanted another word


def test_eos_ends_a_sentence_and_max_len_the_rest():
    config = replace(SMALL, tie="none")
    params = model(config)
    params["out"]["b"][EOS] = 50
    for found in searches(sources(), params, config).values():
        assert found.ids.tolist() == [[EOS]] * 5
        np.testing.assert_allclose(found.log_probs, 0, atol=1e-9)
    params["out"]["b"][EOS] = -50
    for max_len in (1, 4):
        for found in searches(sources(), params, config, max_len).values():
            assert found.ids.shape == (5, max_len)
            assert EOS not in found.ids
    limits = (2 * (sources() != PAD).sum(axis=1) + 10).tolist()
    for found in searches(sources(), params, config).values():
        assert (found.ids != PAD).sum(axis=1).tolist() == limits and found.ids.shape == (5, 2 * 6 + 10)


def test_learned_positions_end_a_sentence_too():
    config = replace(SMALL, position_encoding="learned", tie="none", max_len=7)
    params = model(config)
    params["out"]["b"][EOS] = -50
    for search in (greedy, beam_search):
        assert search(sources(), params, config).ids.shape == (5, 7)
        with pytest.raises(ValueError, match="at most 7 tokens, the learned positions, got max_len 8"):
            search(sources(), params, config, max_len=8)


def test_a_result_has_names_and_shapes():
    found = greedy(sources(), model(), SMALL, max_len=4)
    batch, length = found.ids.shape
    assert isinstance(found, Decoded)
    assert found.log_probs.shape == (batch,)
    assert found.cross.shape == (batch, 2, 2, length, 6)
    assert found.self_attention.shape == (batch, 2, 2, length, length)
    assert np.issubdtype(found.ids.dtype, np.integer)


# ---- sampling --------------------------------------------------------------------------------------------------------

def test_cold_and_narrow_sampling_is_greedy():
    for seed in range(6):
        params, src, rng = model(seed=seed), sources(seed=seed), np.random.default_rng(seed)
        expected = greedy(src, params, SMALL, max_len=7)
        assert_same(sample(src, params, SMALL, rng=rng, top_k=1, max_len=7), expected)
        for temperature in (1e-6, 1e-300):
            assert_same(sample(src, params, SMALL, rng=rng, temperature=temperature, max_len=7), expected)
    cold = sample(src, tree.map(np.float32, params), SMALL, rng=rng, temperature=1e-60, max_len=7)
    assert cold.ids.tolist() == expected.ids.tolist()


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3), (1.0, 100)])
def test_words_are_drawn_as_often_as_the_softmax_says(temperature, top_k):
    draws, params, src = 4000, model(), sources(batch=1)
    logits = by_the_model(src, np.array([[EOS]]), params, SMALL)[0][0]
    logits = logits / temperature
    logits[[PAD, BOS]] = -np.inf
    if top_k == 3:
        logits[np.argsort(logits)[:-3]] = -np.inf
    expected = draws * np.exp(log_softmax(logits))
    options = {"rng": np.random.default_rng(5), "temperature": temperature, "top_k": top_k}
    found = sample(np.repeat(src, draws, axis=0), params, SMALL, **options, max_len=1)
    counts = np.bincount(found.ids[:, 0], minlength=9)
    possible = expected > 0
    assert not counts[~possible].any()
    degrees = possible.sum() - 1
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)    # mean and four standard deviations


def test_the_rng_decides():
    params, src = model(), sources()
    first, again, other = (sample(src, params, SMALL, rng=np.random.default_rng(s), max_len=12).ids for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


# ---- errors ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "message"), [
    ({"temperature": 0}, r"positive, finite temperature, got 0: greedy\(\)"),
    ({"temperature": -1.0}, "got -1.0"),
    ({"temperature": math.nan}, "got nan"),
    ({"temperature": math.inf}, "got inf"),
    ({"top_k": 0}, "top_k of at least 1, got 0"),
    ({"max_len": 0}, "max_len of at least 1, got 0"),
])
def test_sample_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        sample(sources(), model(), SMALL, rng=np.random.default_rng(0), **options)


@pytest.mark.parametrize("search", [greedy, beam_search], ids=["greedy", "beam"])
def test_searches_refuse(search):
    with pytest.raises(ValueError, match="max_len of at least 1, got -1"):
        search(sources(), model(), SMALL, max_len=-1)
    with pytest.raises(ValueError, match=r"src \(B, Tk\), not empty, got \(6,\): one sentence alone is src\[None\]"):
        search(sources()[0], model(), SMALL)
    with pytest.raises(ValueError, match=r"not empty, got \(0, 6\)"):
        search(sources()[:0], model(), SMALL)
    with pytest.raises(TypeError, match="ids to be an array of integers"):
        search(sources() * 1.0, model(), SMALL)
    for token in (-1, 9):
        search(sources(), model(), SMALL, never=(0, 8))         # the first and the last id
        with pytest.raises(ValueError, match=rf"never to hold ids in \[0, 9\), got {token}: is it of another vocabulary"):
            search(sources(), model(), SMALL, never=(3, token))
    lost = model(replace(SMALL, tie="none"))
    lost["out"]["b"][4] = np.nan
    with pytest.raises(ValueError, match=r"finite logits.*did training diverge"):
        search(sources(), lost, replace(SMALL, tie="none"))


def test_beam_search_refuses_no_beam():
    with pytest.raises(ValueError, match="beam of at least 1, got 0"):
        beam_search(sources(), model(), SMALL, beam=0)
