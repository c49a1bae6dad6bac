"""Check of cross-attention."""
from collections.abc import Iterator
from functools import partial

from tinymae import blocks
from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_causal
from tinymae.learn.checks.heads import attend_heads, head_slips, heads_gradients, heads_steps, projections, sums
from tinymae.learn.inputs import TK, TQ, B, D, H, gaussian
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _


def check_cross_attention(names: dict) -> Iterator[tuple[str, list[Row]]]:
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
        return *total(*dx.values()), dp

    def totals(total):
        return partial(gradients, total=total)

    memory_totals = {
        _("the two gradients of memory are averaged: memory is used twice, so they are added"):
            totals(lambda q, k, v: (q, (k + v) / 2)),
        _("the two gradients of memory are multiplied: they are added"): totals(lambda q, k, v: (q, k * v)),
        **{_("dmemory is {wrong}: memory went two ways, to k and v, so it is dmemory_k + dmemory_v", wrong=text):
           totals(lambda q, k, v, chosen=chosen: (q, sum({"k": k, "v": v}[name] for name in chosen)))
           for text, chosen in sums("dmemory_", "kv")},
    }
    mixed = {
        _("dx is the sum of all three gradients, as in self-attention: it is that of the queries alone"):
            totals(lambda q, k, v: (q + k + v, None)),
        _("dx is that of the queries plus that of the keys: keys are made of memory"): totals(lambda q, k, v: (q + k, None)),
        _("dx is that of the queries plus that of the values: values are made of memory"):
            totals(lambda q, k, v: (q + v, None)),
        _("dmemory is the sum of all three gradients, as in self-attention: it is that of the keys and values"):
            totals(lambda q, k, v: (None, q + k + v)),
        _("dmemory is that of the queries plus that of the keys: it is that of the keys and values"):
            totals(lambda q, k, v: (None, q + k)),
        _("dmemory is that of the queries plus that of the values: it is that of the keys and values"):
            totals(lambda q, k, v: (None, q + v)),
        _("dx is that of the keys: it is that of the queries"): totals(lambda q, k, v: (k, None)),
        _("dx is that of the values: it is that of the queries"): totals(lambda q, k, v: (v, None)),
    }
    for length in (TQ, TK):
        memory, alike = gaussian(B, length, D, seed=1), length == TQ
        yield from check_pair(
            names, "cross_attention", blocks.multi_head_attention_forward, x, memory, p, heads=H,
            title=_("{queries} tokens attend to {keys}", queries=TQ, keys=length), variants=swaps if alike else (),
            steps={("x", "memory"): heads_steps}, slips=head_slips(gradients, alike) | memory_totals | (mixed if alike else {}),
            invariants=[lambda y, memory=memory: assert_causal(lambda x: y(x, memory, p, H), x)],
        )
