"""The tab "attention" of the live page: its numbers are those of the package, its gradients those of finite differences."""
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tinymae import tree
from tinymae.blocks import attention_weights
from tinymae.models.decoding import beam_search, greedy, sample
from tinymae.models.transformer import encode, transformer_backward, transformer_forward
from tinymae.ops import attention as attention_op
from tinymae.ops.softmax import softmax_forward
from tinymae.play.attention_tab import LONGEST, gradient, token_gradient, translate
from tinymae.play.translators import ours
from tinymae.tasks.translate import Translator
from tinymae.text.vocabulary import UNK

SENTENCE = "我爸爸昨天没买杯子"


@pytest.fixture(scope="module")
def translator():
    return Translator.load()


@pytest.fixture(scope="module")
def models(translator):
    return SimpleNamespace(translator=ours(translator))


@pytest.fixture(scope="module")
def exact(translator):
    """The shipped model in float64, and the sentence with its translation: params, config, src (1, Tk), ids (1, Tq)."""
    params = tree.map(lambda leaf: leaf.astype(np.float64), translator.params)
    src = np.array([translator.languages[0].encode(SENTENCE)])
    return params, translator.config, src, greedy(src, params, translator.config, never=(UNK,)).ids


@pytest.mark.parametrize("beam", [1, 4])
def test_translate_shows_what_the_translator_computes(translator, models, beam):
    answer = translate(models, text=SENTENCE, beam=beam)
    source, target, decoded = translator.decode(SENTENCE, beam)
    assert (answer["source"], answer["target"], answer["ids"]) == (source, target, decoded.ids[0].tolist())
    assert answer["inputs"] == ["<bos>", *target[:-1]]
    assert answer["text"] == translator.translate([SENTENCE], beam)[0]
    assert answer["ended"] and answer["unknown"] == []
    shown = answer["attention"]
    for kind, weights in ("decoder", decoded.self_attention[0]), ("cross", decoded.cross[0]):
        np.testing.assert_allclose(np.array(shown[kind]["weights"])[:, :-1], weights, rtol=1e-3, atol=1e-6)
    src = np.array([translator.languages[0].encode(SENTENCE)])
    blocks = encode(src, translator.params, translator.config)[1]["encoder"]["blocks"]
    weights = [attention_weights(block["attn"]["sublayer"])[0] for block in blocks]
    np.testing.assert_allclose(np.array(shown["encoder"]["weights"])[:, :-1], weights, rtol=1e-3, atol=1e-6)


def test_the_last_head_is_the_mean_of_the_others(translator, models):
    for shown in translate(models, text=SENTENCE)["attention"].values():
        for name in shown.keys() - {"mask"}:
            heads = np.array(shown[name])
            assert heads.shape[1] == translator.config.heads + 1
            np.testing.assert_allclose(heads[:, -1], heads[:, :-1].mean(axis=1), rtol=1e-3, atol=1e-3 * np.abs(heads).max())


def test_weights_follow_from_scores_and_mask(models):
    shown = translate(models, text=SENTENCE)["attention"]
    for kind, each in shown.items():
        scores, weights = (np.array(each[name])[:, :-1] for name in ("scores", "weights"))
        mask = np.array(each["mask"], bool) if kind == "decoder" else None
        np.testing.assert_allclose(softmax_forward(scores, mask)[0], weights, rtol=0.01, atol=1e-5)      # scores are rounded
    decoder = shown["decoder"]
    np.testing.assert_array_equal(decoder["mask"], np.tri(len(decoder["mask"])))
    assert not np.array(decoder["weights"])[..., ~np.array(decoder["mask"], bool)].any()
    unmasked = np.array(decoder["unmasked"])
    np.testing.assert_allclose(unmasked.sum(axis=-1), 1, rtol=1e-3)
    assert unmasked[..., ~np.array(decoder["mask"], bool)].all()


def test_each_step_has_its_probabilities(models):
    answer = translate(models, text=SENTENCE)
    assert sum(np.log(step["p"]) for step in answer["steps"]) == pytest.approx(answer["log_p"], abs=1e-2)
    assert [step["token"] for step in answer["steps"]] == answer["target"]
    for step in answer["steps"]:
        probabilities = [each["p"] for each in step["top"]]
        assert len(step["top"]) == 5 and probabilities == sorted(probabilities, reverse=True)
        assert step["top"][0]["token"] == step["token"] and step["drawn"] is None


def test_a_temperature_draws_as_sample_does(translator, models):
    found = set()
    src = np.array([translator.languages[0].encode(SENTENCE)])
    for seed in range(3):
        answer = translate(models, text=SENTENCE, temperature=1.5, seed=seed)
        decoded = sample(src, translator.params, translator.config, rng=np.random.default_rng(seed), temperature=1.5,
                         max_len=LONGEST, never=(UNK,))
        assert answer["ids"] == decoded.ids[0].tolist()
        found.add(tuple(answer["ids"]))
    assert len(found) > 1                                       # a seed decides


def test_the_drawn_probabilities_are_those_of_the_temperature(models):
    cold, hot = (translate(models, text=SENTENCE, temperature=t)["steps"][0] for t in (0.5, 2))
    for temperature, step in (0.5, cold), (2, hot):             # the ratio of two tokens: p1 / p2 to the power of 1 / T
        first, second, *_others = step["top"]
        assert first["drawn"] / second["drawn"] == pytest.approx((first["p"] / second["p"]) ** (1 / temperature), rel=5e-3)


def test_unknown_tokens_are_named(translator, models):
    answer = translate(models, text="我爱鳄鱼")
    assert [answer["source"][i] for i in answer["unknown"]] == translator.languages[0].unknown("我爱鳄鱼")
    assert answer["unknown"]


def test_a_beam_may_find_what_greedy_decoding_does_not(translator, models):
    text = "猫比狗小"                                            # outside the phrasebook
    src = np.array([translator.languages[0].encode(text)])
    expected = beam_search(src, translator.params, translator.config, beam=8, never=(UNK,))
    answer = translate(models, text=text, beam=8)
    assert answer["ids"] == expected.ids[0].tolist()
    assert answer["log_p"] == pytest.approx(expected.log_probs[0], rel=1e-3)


def test_the_gradients_of_all_positions_are_that_of_the_sentence(exact):
    """The loss of a sentence is the mean of its tokens' losses, and the whole backward sums over the tokens that are equal."""
    params, config, src, ids = exact
    parts = [token_gradient(src, ids, position, params, config) for position in range(ids.shape[1])]
    loss, cache = transformer_forward(src, ids, params, config)
    np.testing.assert_allclose(np.mean([part.loss for part in parts]), loss, rtol=1e-12)
    dtable = np.zeros_like(params["src_embed"])
    np.add.at(dtable, src[0], np.mean([part.source for part in parts], axis=0))
    np.testing.assert_allclose(dtable, transformer_backward(1.0, cache)["src_embed"], rtol=1e-9, atol=1e-15)


def test_dscores_are_the_finite_differences_of_the_loss(exact, monkeypatch):
    """One score after another is raised by h and lowered by h, in front of the softmax of one attention."""
    params, config, src, ids = exact
    position, h, rng = 5, 1e-5, np.random.default_rng(0)
    found = token_gradient(src, ids, position, params, config)
    softmax = attention_op.softmax_forward
    order = [("encoder", layer) for layer in range(config.encoder_layers)]          # the order in which they are computed
    order += [(kind, layer) for layer in range(config.decoder_layers) for kind in ("decoder", "cross")]

    def loss(call, entry, change):
        calls = iter(range(len(order)))

        def changed(scores, mask=None):
            scores = scores.copy()
            if next(calls) == call:
                scores[(0, *entry)] += change
            return softmax(scores, mask)

        monkeypatch.setattr(attention_op, "softmax_forward", changed)
        result = token_gradient(src, ids, position, params, config).loss
        monkeypatch.setattr(attention_op, "softmax_forward", softmax)
        return result

    for call, (kind, layer) in enumerate(order):
        dscores = found.scores[kind][layer]
        last = np.unravel_index(np.abs(dscores).argmax(), dscores.shape)            # the largest entry, and one at random
        for entry in last, tuple(rng.integers(dscores.shape)):
            slope = (loss(call, entry, h) - loss(call, entry, -h)) / (2 * h)
            assert dscores[entry] == pytest.approx(slope, rel=1e-4, abs=1e-9), (kind, layer, entry)
        assert np.abs(dscores).max() > 1e-5                     # so that the check above is not one of zeros


def test_the_gradient_at_a_source_token_is_the_finite_difference(models, exact):
    params, config, src, ids = exact
    answer = gradient(models, text=SENTENCE, target=ids[0].tolist(), position=5)
    once = [i for i, token in enumerate(src[0]) if np.count_nonzero(src[0] == token) == 1]
    h = 1e-4
    for i in once[:3]:
        losses = []
        for change in h, -h:
            table = params["src_embed"].copy()
            table[src[0, i]] *= 1 + change
            losses.append(token_gradient(src, ids, 5, params | {"src_embed": table}, config).loss)
        assert answer["source"][i]["dot"] == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=2e-3, abs=1e-7)
    source = token_gradient(src, ids, 5, params, config).source
    norms = np.linalg.norm(source, axis=1)
    np.testing.assert_allclose([each["norm"] for each in answer["source"]], norms, rtol=1e-3)
    assert (np.abs(source.sum(axis=1)) < 1e-9 * norms).all()    # the sum over the entries says nothing: see `gradient`


def test_the_gradient_of_a_token_knows_the_mask(models):
    shown = translate(models, text=SENTENCE)
    answer = gradient(models, text=SENTENCE, target=shown["ids"], position=2)
    assert answer["token"] == shown["target"][2]
    assert answer["p"] == pytest.approx(shown["steps"][2]["p"], rel=1e-3)
    assert answer["loss"] == pytest.approx(-np.log(answer["p"]), rel=1e-2)
    for kind, dscores in answer["dscores"].items():
        dscores, weights = np.array(dscores), np.array(shown["attention"][kind]["weights"])
        assert dscores.shape == weights.shape
        np.testing.assert_allclose(dscores.sum(axis=-1), 0, atol=1e-3 * np.abs(dscores).max())      # softmax: rows sum to zero
    later = np.array(answer["dscores"]["decoder"])
    assert not later[:, :, 3:].any() and not np.triu(later, 1).any()                # no later step, and no forbidden key


def test_answers_are_json_of_bounded_size(models):
    text = "我" * (LONGEST - 1)                                 # repeats one token until it is cut off
    answer = translate(models, text=text)
    assert len(answer["target"]) == LONGEST and not answer["ended"]
    found = gradient(models, text=text, target=answer["ids"], position=0)
    assert len(json.dumps(answer, allow_nan=False)) < 800_000
    assert len(json.dumps(found, allow_nan=False)) < 300_000


@pytest.mark.parametrize(("question", "words"), [
    ({"text": " "}, "no tokens to attend to"),
    ({"text": 3}, "no tokens to attend to"),
    ({"text": "我" * LONGEST}, f"at most {LONGEST - 1} tokens, got {LONGEST}"),
    ({"beam": 0}, "beam to be a whole number from 1 to 8, got 0"),
    ({"beam": 9}, "got 9"),
    ({"beam": True}, "got True"),
    ({"seed": 1.5}, "seed to be a whole number"),
    ({"temperature": -1}, "temperature of 0, or from 0.05 to 5, got -1"),
    ({"temperature": float("nan")}, "got nan"),
    ({"temperature": "1"}, "got '1'"),
    ({"temperature": 1, "beam": 2}, "temperature of 0 with a beam of 2"),
])
def test_translate_refuses_what_does_not_fit(models, question, words):
    with pytest.raises(ValueError, match=words):
        translate(models, **{"text": SENTENCE} | question)


@pytest.mark.parametrize(("question", "words"), [
    ({"text": ""}, "no tokens to attend to"),
    ({"target": []}, "a list of 1 to 32 ids, got 0"),
    ({"target": [4] * 33}, "got 33"),
    ({"target": "i"}, "got str"),
    ({"target": [4, 415]}, "target to be a whole number from 0 to 414, got 415"),
    ({"target": [4, "i"]}, "got 'i'"),
    ({"position": 2}, "position to be a whole number from 0 to 1, got 2"),
    ({"position": -1}, "got -1"),
])
def test_gradient_refuses_what_does_not_fit(models, question, words):
    with pytest.raises(ValueError, match=words):
        gradient(models, **{"text": SENTENCE, "target": [4, 2], "position": 0} | question)
