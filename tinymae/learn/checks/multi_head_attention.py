"""Checks of multi-head attention: the forward alone, the pair, and one sentence."""
import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

from tinymae import blocks
from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_causal
from tinymae.learn.checks.attention import attend
from tinymae.learn.checks.heads import attend_heads, head_slips, head_variants, heads_gradients, heads_steps, projections, sums
from tinymae.learn.inputs import DK, TQ, B, D, H, gaussian
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.masks import causal_mask
from tinymae.messages import listed
from tinymae.messages import message as _

SPLITS = {                                                      # as a learner writes them, and as functions
    "x.reshape(B, H, T, d)": lambda y: y.reshape(len(y), H, -1, DK),
    "x.reshape(B, T, d, H).transpose(0, 3, 1, 2)": lambda y: y.reshape(*y.shape[:2], -1, H).transpose(0, 3, 1, 2),
    "x.swapaxes(1, 2).reshape(B, H, T, d)": lambda y: y.mT.reshape(len(y), H, -1, DK),
    "x.reshape(H, B, T, d).swapaxes(0, 1)": lambda y: y.reshape(H, len(y), -1, DK).swapaxes(0, 1),
}
MERGES = {
    "z.reshape(B, T, D)": lambda z: z.reshape(len(z), -1, D),
    "z.transpose(0, 2, 3, 1).reshape(B, T, D)": lambda z: z.transpose(0, 2, 3, 1).reshape(len(z), -1, D),
    "z.transpose(0, 3, 1, 2).reshape(B, T, D)": lambda z: z.transpose(0, 3, 1, 2).reshape(len(z), -1, D),
    "z.transpose(0, 3, 2, 1).reshape(B, T, D)": lambda z: z.transpose(0, 3, 2, 1).reshape(len(z), -1, D),
    "z.swapaxes(2, 3).reshape(B, T, D)": lambda z: z.mT.reshape(len(z), -1, D),
    "z.swapaxes(0, 1).reshape(B, T, D)": lambda z: z.swapaxes(0, 1).reshape(len(z), -1, D),
    "z.swapaxes(1, 2).reshape(B, T, D)": lambda z: z.swapaxes(1, 2).reshape(len(z), -1, D),
}


def check_multi_head_attention_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention, without a mask and with a causal one."""
    def right(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)[0]

    def changed(parameters=lambda p: p, **wrong):
        return lambda x, p, heads, mask=None: attend_heads(x, x, x, parameters(p), heads, mask, **wrong)

    def alone(y):
        return y.reshape(len(y), H, -1, DK)

    def in_turn(y):
        return y.reshape(*y.shape[:2], -1, H).transpose(0, 3, 1, 2)

    def take_turns(z):
        return z.transpose(0, 2, 3, 1).reshape(len(z), z.shape[2], -1)

    x, p, mask = gaussian(B, TQ, D), projections(), causal_mask(TQ)
    variants = head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)) | {
        _("the projection W_out is missing"): changed(lambda p: p | {"out": {"w": np.eye(D)}}),
        _("k and v are swapped"): changed(lambda p: p | {"k": p["v"], "v": p["k"]}),
        _("the queries are used as keys"): changed(lambda p: p | {"k": p["q"]}),
        _("the keys are used as values"): changed(lambda p: p | {"v": p["k"]}),
        _("the matrices are transposed: here they are (in, out), PyTorch has (out, in)"):
            changed(lambda p: {name: {"w": part["w"].T} for name, part in p.items()}),
        _("W_out is transposed"): changed(lambda p: p | {"out": {"w": p["out"]["w"].T}}),
        _("W_q, W_k and W_v are not used"): changed(lambda p: {name: {"w": np.eye(D)} for name in "qkv"} | {"out": p["out"]}),
        _("x is added: the residual path belongs to the layer"): lambda x, p, heads, mask=None: x + attend_heads(
            x, x, x, p, heads, mask),
        _("there is one head of width D: cut q, k and v into heads"): lambda x, p, heads, mask=None: attend_heads(
            x, x, x, p, 1, mask),
        _("the heads come in the reverse order"):
            changed(merge=lambda z: z[:, ::-1].swapaxes(1, 2).reshape(len(z), z.shape[2], -1)),
        _("the heads are averaged, and the mean stands in the place of each: put them side by side"):
            changed(merge=lambda z: np.tile(z.mean(1), z.shape[1])),
        _("no axes are swapped, so that the heads of one token attend to each other"):
            lambda x, p, heads, mask=None: attend_heads(
                x, x, x, p, heads, split=lambda y: y.reshape(*y.shape[:2], H, -1),
                merge=lambda z: z.reshape(len(z), z.shape[1], -1),
            ),
        _("head 0 stands in the place of all"): changed(merge=lambda z: np.tile(z[:, 0], z.shape[1])),
        _("the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            changed(split=in_turn),
        _("the heads are split and merged by a reshape alone: swap the axes of heads and tokens, after the first reshape and "
          "before the last"): changed(split=alone, merge=lambda z: z.reshape(len(z), -1, D)),
        _("the columns of the heads take turns in the merge: swap the axes of heads and tokens only, so that whole heads are "
          "side by side"): changed(merge=take_turns),
        _("the columns are assigned to the heads in turn, in the split and in the merge: head h has the columns h d ... "
          "(h + 1) d - 1"): changed(split=in_turn, merge=take_turns),
        _("the heads are added up, and the sum stands in the place of each: put them side by side"):
            changed(merge=lambda z: np.tile(z.sum(1), z.shape[1])),
        _("x is overwritten: q is made of x, k of q and v of k; all three are made of x"): changed(lambda p: p | {
            "k": {"w": p["q"]["w"] @ p["k"]["w"]}, "v": {"w": p["q"]["w"] @ p["k"]["w"] @ p["v"]["w"]}}),
        **{_("{second} is made of {first} in place of x", first=first, second=second):
           changed(lambda p, first=first, second=second: p | {second: {"w": p[first]["w"] @ p[second]["w"]}})
           for first, second in itertools.permutations("qkv", 2)},
        _("there are d heads of H columns: it is H heads of d columns"):
            lambda x, p, heads, mask=None: attend_heads(x, x, x, p, x.shape[-1] // heads, mask),
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
        cut = [each.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for each in flat]
        z = attend(*cut, mask)
        return {_("x W_q, x W_k and x W_v"): flat, _("q, k and v in heads, (B, H, T, d)"): cut,
                _("z of (2), (B, H, T, d)"): [z], _("the heads of z side by side"): [z.swapaxes(1, 2).reshape(x.shape)]}

    core = partial(check_forward, names, "multi_head_attention", right, x, p, heads=H, variants=variants, steps=steps)
    yield from core()
    yield from core(title=_("seven heads"), heads=7, variants={}, otherwise=_("right for two heads only: use the argument"))
    yield from core(
        title=_("with a causal mask"), mask=mask, invariants=[lambda y: assert_causal(lambda x: y(x, p, heads=H, mask=mask), x)]
    )


def check_multi_head_attention(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention, without a mask and with a causal one."""
    def reference(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)

    def gradients(dy, x, p, heads, mask=None, *, total=lambda dx: sum(dx.values()), **options):
        dx, dp = heads_gradients(dy, x, x, p, heads, mask, **options)
        return total(dx), dp

    def totals(total):
        return partial(gradients, total=total)

    block = partial(
        check_pair, names, "multi_head_attention", reference, gaussian(B, TQ, D), projections(), heads=H,
        variants=head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)),
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


def check_sentence(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention of one sentence (T, D): a batch of one."""
    def reference(x, p, heads):
        y, cache = blocks.multi_head_attention_forward(x[None], x[None], p, heads)
        return y[0], cache

    variants = head_variants(lambda x, p, heads, **wrong: attend_heads(x[None], x[None], x[None], p, heads, **wrong)[0])
    yield from check_pair(names, "self_attention", reference, gaussian(TQ, D), projections(), heads=H, variants=variants)
