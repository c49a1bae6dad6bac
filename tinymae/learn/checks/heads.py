"""Check of splitting into heads and merging them; and the mistakes that multi-head attention and cross-attention share."""
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinymae import init
from tinymae.learn.checks.attention import ATTENTION_VARIANTS, attend
from tinymae.learn.demands import function
from tinymae.learn.inputs import DK, TQ, B, D, H, gaussian
from tinymae.learn.judge import Tables, judge
from tinymae.messages import message as _
from tinymae.ops import attention, linear


def split_heads(x: np.ndarray, heads: int = H) -> np.ndarray:
    """x (B, T, D) in heads, (B, H, T, d)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def merge_heads(z: np.ndarray) -> np.ndarray:
    """The heads z (B, H, T, d) side by side, (B, T, D)."""
    return z.swapaxes(1, 2).reshape(len(z), z.shape[2], -1)


SPLITS = {                                                      # as a learner writes them, and as functions
    "x.reshape(B, H, T, d)": lambda x: x.reshape(len(x), H, x.shape[1], -1),
    "x.reshape(B, T, d, H).transpose(0, 3, 1, 2)": lambda x: x.reshape(*x.shape[:2], -1, H).transpose(0, 3, 1, 2),
    "x.swapaxes(1, 2).reshape(B, H, T, d)": lambda x: x.mT.reshape(len(x), H, -1, DK),
    "x.reshape(H, B, T, d).swapaxes(0, 1)": lambda x: x.reshape(H, len(x), -1, DK).swapaxes(0, 1),
}
MERGES = {
    "z.reshape(B, T, D)": lambda z: z.reshape(len(z), z.shape[2], -1),
    "z.transpose(0, 2, 3, 1).reshape(B, T, D)": lambda z: z.transpose(0, 2, 3, 1).reshape(len(z), -1, D),
    "z.transpose(0, 3, 1, 2).reshape(B, T, D)": lambda z: z.transpose(0, 3, 1, 2).reshape(len(z), -1, D),
    "z.transpose(0, 3, 2, 1).reshape(B, T, D)": lambda z: z.transpose(0, 3, 2, 1).reshape(len(z), -1, D),
    "z.swapaxes(2, 3).reshape(B, T, D)": lambda z: z.mT.reshape(len(z), -1, D),
    "z.swapaxes(0, 1).reshape(B, T, D)": lambda z: z.swapaxes(0, 1).reshape(len(z), -1, D),
    "z.swapaxes(1, 2).reshape(B, T, D)": merge_heads,
}
SPLIT_AT_ONCE, SPLIT_IN_TURN = list(SPLITS.values())[:2]        # by a reshape alone; the columns in turn
MERGE_AT_ONCE, MERGE_IN_TURN = list(MERGES.values())[:2]


def check_split_heads(names: dict) -> Tables:
    """Splitting and merging."""
    split, merge, x = function(names, "split_heads"), function(names, "merge_heads"), gaussian(B, TQ, D)
    heads = split_heads(x)
    yield "split_heads", [judge("heads", split(x, H), heads, {
        _("x is reshaped at once, which splits positions, not features: reshape to (B, T, H, d) first, then swap the axes"):
            partial(SPLIT_AT_ONCE, x),
        _("the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            partial(SPLIT_IN_TURN, x),
        _("there are d heads of H columns: it is H heads of d columns"): lambda: x.reshape(B, TQ, DK, H).swapaxes(1, 2),
        _("the reshape makes axes (B, H, d, T), as if the tokens were the last axis: make axes (B, T, H, d), then swap two"):
            lambda: x.reshape(B, H, DK, TQ).mT,
        _("features and tokens are swapped before the reshape: first make an axis of heads out of the columns"):
            lambda: x.mT.reshape(B, H, TQ, DK),
        _("head h owns the columns in the reverse order of the heads: head 0 has the first d columns"): lambda: heads[:, ::-1],
    })]
    yield _("seven heads"), [judge(
        "heads", split(x, 7), split_heads(x, 7), otherwise=_("right for two heads only: use the argument"))]
    yield "merge_heads", [judge("merged", merge(heads), x, {
        _("the heads are reshaped at once: swap the axes back first, then merge the last two"): partial(MERGE_AT_ONCE, heads),
        _("the columns of the heads take turns: swap the axes of heads and tokens only, then whole heads are side by side"):
            partial(MERGE_IN_TURN, heads),
        _("the heads are concatenated along the tokens: along the features, the last axis"):
            lambda: np.concatenate([*heads.swapaxes(0, 1)], axis=1),
        _("the heads are added up: put them side by side"): lambda: heads.sum(1),
        _("the heads are averaged: put them side by side"): lambda: heads.mean(1),
        _("heads and features are swapped: swap the axes of heads and tokens"): lambda: heads.swapaxes(1, 3).reshape(B, TQ, D),
        _("tokens and features are swapped: swap the axes of heads and tokens"): lambda: heads.mT.reshape(B, TQ, D),
    })]


def attend_heads(
    xq: np.ndarray, xk: np.ndarray, xv: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None, *,
    core: Callable = attend, split: Callable | None = None, merge: Callable = merge_heads,
) -> np.ndarray:
    """Multi-head attention without biases and without mistakes; core, split and merge replace parts by mistakes."""
    split = split or partial(split_heads, heads=heads)
    q, k, v = (split(x @ p[name]["w"]) for name, x in (("q", xq), ("k", xk), ("v", xv)))
    return merge(core(q, k, v, mask)) @ p["out"]["w"]


def head_variants(self_attention: Callable) -> dict[str, Callable]:
    """{mistake between the projections: function that returns the y of it}, from a correct `self_attention`."""
    variants = {
        _("the heads are split by a reshape alone: reshape to (B, T, H, d) first, then swap the axes"):
            {"split": SPLIT_AT_ONCE},
        _("the heads are merged by a reshape alone: swap the axes back first"): {"merge": MERGE_AT_ONCE},
        _("every weight is 1.0 and every token attends to itself only: are the tokens on the batch axis? Then attention gets "
          "sentences of one token"): {"core": lambda q, k, v, mask: v},
        **{words: {"core": core} for words, core in ATTENTION_VARIANTS.items()},
    }
    return {words: partial(self_attention, **wrong) for words, wrong in variants.items()}


def projections() -> dict:
    """W_q, W_k, W_v and W_out, without biases."""
    return init.multi_head_attention(D, H, np.random.default_rng(0), bias=False, dtype=np.float64)


def heads_gradients(
    dy: np.ndarray, xq: np.ndarray, xkv: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None, *,
    out: Callable = lambda dy, w: dy @ w.T, split: Callable | None = None, merge: dict[str, Callable] | None = None,
    through: str = "qkv", order: str = "qkv", turned: bool = False,
) -> tuple[dict[str, np.ndarray], dict]:
    """({"q": dxq, "k": dxk, "v": dxv}, dp) of `attend_heads`, without mistakes; the options are mistakes.

    out(dy, W_out) gives dz, split replaces the split of dz, merge that of the gradients it names, through are the caches that
    dq, dk and dv go back through, order is how the gradients of the core are unpacked, and turned leaves out the transpose of
    W_q, W_k and W_v.
    """
    merge, sources = merge or {}, {"q": xq, "k": xkv, "v": xkv}
    projected = {name: linear.linear_forward(x, **p[name]) for name, x in sources.items()}
    z, core = attention.scaled_dot_product_attention_forward(*(split_heads(y, heads) for y, _cache in projected.values()), mask)
    _dz, dout, _db = linear.linear_backward(dy, linear.linear_forward(merge_heads(z), **p["out"])[1])
    split = split or partial(split_heads, heads=heads)
    gradients = attention.scaled_dot_product_attention_backward(split(out(dy, p["out"]["w"])), core)
    unpacked = dict(zip(order, gradients, strict=True))
    dx, dp = {}, {"out": {"w": dout}}
    for name, cache in zip("qkv", through, strict=True):
        gradient = merge.get(name, merge_heads)(unpacked[name])
        dx[name], dw, _db = linear.linear_backward(gradient, projected[cache][1])
        dx[name] = gradient @ p[cache]["w"] if turned else dx[name]
        dp[name] = {"w": dw}
    return dx, dp


def heads_steps(
    dy: np.ndarray, xq: np.ndarray, xkv: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None,
) -> dict[str, list[np.ndarray]]:
    """What the backward of multi-head attention computes before dx, in its order."""
    q, k, v = (split_heads(x @ p[name]["w"], heads) for name, x in (("q", xq), ("k", xkv), ("v", xkv)))
    _z, core = attention.scaled_dot_product_attention_forward(q, k, v, mask)
    dz = dy @ p["out"]["w"].T
    gradients = attention.scaled_dot_product_attention_backward(split_heads(dz, heads), core)
    merged = [merge_heads(gradient) for gradient in gradients]
    return {
        _("dz"): [dz], _("dz in heads"): [split_heads(dz, heads)], _("dq, dk and dv in heads"): list(gradients),
        _("dq, dk and dv with their heads side by side"): merged,
        _("dxq, dxk and dxv"): [each @ p[name]["w"].T for name, each in zip("qkv", merged, strict=True)],
    }


def head_slips(gradients: Callable, same_length: bool = True) -> dict[str, Callable]:
    """{mistake between the projections: function that returns the gradients of it}, from correct `gradients`.

    same_length tells whether there are as many queries as keys: some mistakes need it in order to run.
    """
    wrong = {
        _("dq, dk and dv are put together by a reshape alone: swap the axes back first, as merge_heads does"):
            {"merge": dict.fromkeys("qkv", MERGE_AT_ONCE)},
        _("dz is split into heads by a reshape alone: reshape to (B, T, H, d), then swap the axes, as split_heads does"):
            {"split": SPLIT_AT_ONCE},
        _("dz is split, and dq, dk, dv are put together, by a reshape alone: split_heads and merge_heads swap axes, too"):
            {"split": SPLIT_AT_ONCE, "merge": dict.fromkeys("qkv", MERGE_AT_ONCE)},
        **{_("{gradient} is put together by a reshape alone: swap the axes back first, as merge_heads does",
             gradient="d" + name): {"merge": {name: MERGE_AT_ONCE}} for name in "qkv"},
        _("dk and dv are put together by a reshape alone: swap the axes back first, as merge_heads does"):
            {"merge": dict.fromkeys("kv", MERGE_AT_ONCE)},
        _("dz is split with its columns assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            {"split": SPLIT_IN_TURN},
        _("dq, dk and dv are put together with the heads taking turns, column by column: put whole heads side by side"):
            {"merge": dict.fromkeys("qkv", MERGE_IN_TURN)},
        _("dz is dy itself: first dy goes back through W_out"): {"out": lambda dy, w: dy},
        _("dz is dy W_out: it is dy W_out^T"): {"out": lambda dy, w: dy @ w},
        _("dq, dk and dv are multiplied with W_q, W_k and W_v: it should be with their transposes"): {"turned": True},
        **{_("dq, dk and dv go back through the caches of {first}, {second} and {third}: each through its own, q, k and v",
             first=through[0], second=through[1], third=through[2]): {"through": "".join(through)}
           for through in itertools.product("qkv", repeat=3)
           if "".join(through) != "qkv" and (same_length or (through[0] == "q" and "q" not in through[1:]))},
    }
    for order in itertools.permutations("qkv"):
        if "".join(order) != "qkv" and (same_length or order[0] == "q"):
            words = _("the core's gradients are unpacked as d{first}, d{second}, d{third}: unpack the gradients of another "
                      "backward in the order that it returns them, dq, dk, dv", first=order[0], second=order[1], third=order[2])
            wrong[words] = {"order": "".join(order)}
    return {words: partial(gradients, **options) for words, options in wrong.items()}


def sums(prefix: str, names: str) -> Iterator[tuple[str, str]]:
    """The wrong sums of some of these gradients, as (text, names): ("dxq + dxk", "qk")."""
    for count in range(1, len(names) + 1):
        for chosen in itertools.combinations_with_replacement(names, count):
            if "".join(chosen) != names:
                yield " + ".join(f"{prefix}{name}" for name in chosen), "".join(chosen)
