"""Checks of multi-head attention: the forward alone, the pair, one sentence, and cross-attention."""
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae import blocks
from tinymae.gradcheck.invariants import assert_causal
from tinymae.learn.checks.attention import attend
from tinymae.learn.checks.heads import (
    MERGE_AT_ONCE,
    MERGE_IN_TURN,
    MERGES,
    SPLIT_AT_ONCE,
    SPLIT_IN_TURN,
    SPLITS,
    attend_heads,
    head_slips,
    head_variants,
    heads_gradients,
    heads_steps,
    merge_heads,
    projections,
    split_heads,
    sums,
)
from tinymae.learn.inputs import DK, TK, TQ, B, D, H, gaussian
from tinymae.learn.judge import Tables
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.masks import causal_mask
from tinymae.messages import listed
from tinymae.messages import message as _


def attend_self(x: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None, **wrong: Callable) -> np.ndarray:
    """Self-attention, with mistakes as in `attend_heads`."""
    return attend_heads(x, x, x, p, heads, mask, **wrong)


def check_multi_head_attention_forward(names: dict) -> Tables:
    """Self-attention, without a mask and with a causal one."""
    def right(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)

    def changed(parameters=lambda p: p, heads=H, **wrong):
        return lambda x, p, mask=None, **_heads: attend_self(x, parameters(p), heads, mask, **wrong)

    x, p, mask = gaussian(B, TQ, D), projections(), causal_mask(TQ)
    variants = head_variants(attend_self) | {
        _("the projection W_out is missing"): changed(lambda p: p | {"out": {"w": np.eye(D)}}),
        _("k and v are swapped"): changed(lambda p: p | {"k": p["v"], "v": p["k"]}),
        _("the queries are used as keys"): changed(lambda p: p | {"k": p["q"]}),
        _("the keys are used as values"): changed(lambda p: p | {"v": p["k"]}),
        _("the matrices are transposed: here they are (in, out), PyTorch has (out, in)"):
            changed(lambda p: {name: {"w": part["w"].T} for name, part in p.items()}),
        _("W_out is transposed"): changed(lambda p: p | {"out": {"w": p["out"]["w"].T}}),
        _("W_q, W_k and W_v are not used"): changed(lambda p: {name: {"w": np.eye(D)} for name in "qkv"} | {"out": p["out"]}),
        _("x is added: the residual path belongs to the layer"): lambda x, *args, **mask: x + attend_self(x, *args, **mask),
        _("there is one head of width D: cut q, k and v into heads"): changed(heads=1),
        _("the heads come in the reverse order"): changed(merge=lambda z: merge_heads(z[:, ::-1])),
        _("the heads are averaged, and the mean stands in the place of each: put them side by side"):
            changed(merge=lambda z: np.tile(z.mean(1), z.shape[1])),
        _("no axes are swapped, so that the heads of one token attend to each other"):
            lambda x, p, heads, mask=None: attend_self(x, p, heads, split=lambda y: y.reshape(*y.shape[:2], H, -1),
                                                       merge=lambda z: z.reshape(len(z), z.shape[1], -1)),
        _("head 0 stands in the place of all"): changed(merge=lambda z: np.tile(z[:, 0], z.shape[1])),
        _("the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            changed(split=SPLIT_IN_TURN),
        _("the heads are split and merged by a reshape alone: swap the axes of heads and tokens, after the first reshape and "
          "before the last"): changed(split=SPLIT_AT_ONCE, merge=MERGE_AT_ONCE),
        _("the columns of the heads take turns in the merge: swap the axes of heads and tokens only, so that whole heads are "
          "side by side"): changed(merge=MERGE_IN_TURN),
        _("the columns are assigned to the heads in turn, in the split and in the merge: head h has the columns h d ... "
          "(h + 1) d - 1"): changed(split=SPLIT_IN_TURN, merge=MERGE_IN_TURN),
        _("the heads are added up, and the sum stands in the place of each: put them side by side"):
            changed(merge=lambda z: np.tile(z.sum(1), z.shape[1])),
        _("x is overwritten: q is made of x, k of q and v of k; all three are made of x"): changed(lambda p: p | {
            "k": {"w": p["q"]["w"] @ p["k"]["w"]}, "v": {"w": p["q"]["w"] @ p["k"]["w"] @ p["v"]["w"]}}),
        **{_("{second} is made of {first} in place of x", first=first, second=second):
           changed(lambda p, first=first, second=second: p | {second: {"w": p[first]["w"] @ p[second]["w"]}})
           for first, second in itertools.permutations("qkv", 2)},
        _("there are d heads of H columns: it is H heads of d columns"): changed(heads=DK),
        _("every head uses the first d rows of W_out: head h has the rows h d ... (h + 1) d - 1"):
            changed(lambda p: p | {"out": {"w": np.tile(p["out"]["w"][:DK], (H, 1))}}),
        _("W_out has its rows in the order of other heads: head h has the rows h d ... (h + 1) d - 1"):
            changed(lambda p: p | {"out": {"w": p["out"]["w"].reshape(DK, H, D).swapaxes(0, 1).reshape(D, D)}}),
        **{_("the heads are split as {split} and merged as {merge}: it is x.reshape(B, T, H, d).swapaxes(1, 2) and "
             "z.swapaxes(1, 2).reshape(B, T, D)", split=cut, merge=joined): changed(split=SPLITS[cut], merge=MERGES[joined])
           for cut in SPLITS for joined in MERGES},
        **{_("{input} is x itself: it is x times its own matrix, {matrix}", input=name, matrix="W_" + name):
           changed(lambda p, name=name: p | {name: {"w": np.eye(D)}}) for name in "qkv"},
        **{_("these matrices are transposed: {matrices}; here they are (in, out), PyTorch has (out, in)",
             matrices=listed(f"W_{name}" for name in chosen)):
           changed(lambda p, chosen=chosen: p | {name: {"w": p[name]["w"].T} for name in chosen})
           for count in (1, 2, 3) for chosen in itertools.combinations(("q", "k", "v", "out"), count) if chosen != ("out",)},
        **{_("q, k and v are made with W_{first}, W_{second} and W_{third}, or handed over in this order: it should be W_q, "
             "W_k and W_v", first=chosen[0], second=chosen[1], third=chosen[2]):
           changed(lambda p, chosen=chosen: p | {name: p[other] for name, other in zip("qkv", chosen, strict=True)})
           for chosen in itertools.product("qkv", repeat=3) if "".join(chosen) not in ("qkv", "qvk", "qqv", "qkk")},
    }

    def steps(x, p, heads, mask=None):
        flat = [x @ p[name]["w"] for name in "qkv"]
        cut = [split_heads(each, heads) for each in flat]
        z = attend(*cut, mask)
        return {_("x W_q, x W_k and x W_v"): flat, _("q, k and v in heads, (B, H, T, d)"): cut,
                _("z of (2), (B, H, T, d)"): [z], _("the heads of z side by side"): [merge_heads(z)]}

    core = partial(check_forward, names, "multi_head_attention", right, x, p, heads=H, variants=variants, steps=steps)
    yield from core()
    yield from core(title=_("seven heads"), heads=7, variants={}, otherwise=_("right for two heads only: use the argument"))
    yield from core(
        title=_("with a causal mask"), mask=mask, invariants=[lambda y: assert_causal(lambda x: y(x, p, heads=H, mask=mask), x)]
    )


def check_multi_head_attention(names: dict) -> Tables:
    """Self-attention, without a mask and with a causal one."""
    def reference(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)

    def gradients(dy, x, p, heads, mask=None, *, total=lambda dx: sum(dx.values()), **options):
        dx, dp = heads_gradients(dy, x, x, p, heads, mask, **options)
        return total(dx), dp

    def totals(total):
        return partial(gradients, total=total)

    block = partial(
        check_pair, names, "multi_head_attention", reference, gaussian(B, TQ, D), projections(), heads=H, samples=64,
        variants=head_variants(attend_self),
        steps={("x",): lambda dy, x, p, heads, mask=None: heads_steps(dy, x, x, p, heads, mask)},
        slips=head_slips(gradients) | {
            _("the three gradients of x are averaged: x is used three times, so they are added"):
                totals(lambda dx: sum(dx.values()) / 3),
            _("the three gradients of x are multiplied: they are added"): totals(lambda dx: dx["q"] * dx["k"] * dx["v"]),
            **{_("dx is {wrong}: x went three ways, to q, k and v, so dx is dxq + dxk + dxv", wrong=text):
               totals(lambda dx, chosen=chosen: sum(dx[name] for name in chosen)) for text, chosen in sums("dx", "qkv")},
        },
    )
    yield from block()
    yield from block(title=_("with a causal mask"), mask=causal_mask(TQ))


def check_sentence(names: dict) -> Tables:
    """Self-attention of one sentence (T, D): a batch of one."""
    def reference(x, p, heads):
        y, cache = blocks.multi_head_attention_forward(x[None], x[None], p, heads)
        return y[0], cache

    variants = head_variants(lambda x, p, heads, **wrong: attend_self(x[None], p, heads, **wrong)[0])
    yield from check_pair(names, "self_attention", reference, gaussian(TQ, D), projections(), heads=H, variants=variants)


def check_cross_attention(names: dict) -> Tables:
    """With a source as long as the target, which some mistakes need in order to run; then with a longer source."""
    def variant(*sources):
        return lambda x, memory, p, heads: attend_heads(*({"x": x, "m": memory}[source] for source in sources), p, heads)

    x, p = gaussian(B, TQ, D), projections()
    swaps = {
        _("queries and keys come from the encoder, values from the decoder: queries come from the decoder, keys and values "
          "from the encoder; otherwise tokens attend to later tokens"): variant(*"mmx"),
        _("queries come from the encoder, keys and values from the decoder: it should be the reverse"): variant(*"mxx"),
        _("keys come from the decoder, like the queries: they come from the encoder"): variant(*"xxm"),
        _("values come from the decoder, like the queries: they come from the encoder"): variant(*"xmx"),
        _("all three come from the decoder, which is self-attention: keys and values come from the encoder"): variant(*"xxx"),
    }

    def gradients(dy, x, memory, p, heads, *, total=lambda q, k, v: (q, k + v), **options):
        dx, dp = heads_gradients(dy, x, memory, p, heads, **options)
        return *total(**dx), dp

    def totals(total):
        return partial(gradients, total=total)

    def dx(chosen):
        return totals(lambda **dx: (sum(dx[name] for name in chosen), None))

    def dmemory(chosen):
        return totals(lambda **dx: (None, sum(dx[name] for name in chosen)))

    memory_totals = {
        _("the two gradients of memory are averaged: memory is used twice, so they are added"):
            totals(lambda q, k, v: (q, (k + v) / 2)),
        _("the two gradients of memory are multiplied: they are added"): totals(lambda q, k, v: (q, k * v)),
        **{_("dmemory is {wrong}: memory went two ways, to k and v, so it is dmemory_k + dmemory_v", wrong=text):
           totals(lambda chosen=chosen, **dx: (dx["q"], sum(dx[name] for name in chosen)))
           for text, chosen in sums("dmemory_", "kv")},
    }
    mixed = {
        _("dx is the sum of all three gradients, as in self-attention: it is that of the queries alone"): dx("qkv"),
        _("dx is that of the queries plus that of the keys: keys are made of memory"): dx("qk"),
        _("dx is that of the queries plus that of the values: values are made of memory"): dx("qv"),
        _("dmemory is the sum of all three gradients, as in self-attention: it is that of the keys and values"): dmemory("qkv"),
        _("dmemory is that of the queries plus that of the keys: it is that of the keys and values"): dmemory("qk"),
        _("dmemory is that of the queries plus that of the values: it is that of the keys and values"): dmemory("qv"),
        _("dx is that of the keys: it is that of the queries"): dx("k"),
        _("dx is that of the values: it is that of the queries"): dx("v"),
    }
    for length in (TQ, TK):
        memory, alike = gaussian(B, length, D, seed=1), length == TQ
        yield from check_pair(
            names, "cross_attention", blocks.multi_head_attention_forward, x, memory, p, heads=H, samples=64,
            title=_("{queries} tokens attend to {keys}", queries=TQ, keys=length), variants=swaps if alike else (),
            steps={("x", "memory"): heads_steps}, slips=head_slips(gradients, alike) | memory_totals | (mixed if alike else {}),
            invariants=[lambda y, memory=memory: assert_causal(lambda x: y(x, memory, p, H), x)],
        )
