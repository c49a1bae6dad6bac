"""Check of the embedding."""
from collections.abc import Iterator

import numpy as np

from tinymae.gradcheck import Row
from tinymae.learn.inputs import D, V, gaussian
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _
from tinymae.ops import embedding


def check_embedding(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With ids that repeat, in one row and in one column, and ids that do not occur."""
    def gradient(dy, ids):
        dtable = np.zeros((V, D))
        np.add.at(dtable, ids, dy)
        return dtable

    def slip(mistake):
        return lambda dy, ids, table: mistake(dy, ids, gradient(dy, ids))

    yield from check_pair(
        names, "embedding", embedding.embedding_forward, np.array([[3, 1, 3, 0], [3, 3, 1, 5]]), gaussian(V, D),
        gradients={"table": {
            _("row 0 gets no gradient: here id 0 is a token like the others, not padding"):
                slip(lambda dy, ids, dtable: dtable * (np.arange(V) > 0)[:, None]),
            _("the gradients go to the rows t = 0, 1, 2 ...: they belong to the rows ids[b, t]"):
                slip(lambda dy, ids, dtable: gradient(dy, np.arange(4) + 0 * ids)),
            _("each gradient is summed over its features: row v gets dy[b, t] itself, with all features"):
                slip(lambda dy, ids, dtable: dtable.sum(axis=1, keepdims=True) + 0 * dtable),
            _("all ids get the sum of all gradients: each gets those of its own positions"):
                slip(lambda dy, ids, dtable: dy.sum((0, 1)) * np.isin(np.arange(V), ids)[:, None]),
            _("only the first sentence of the batch is used: the gradients of all sentences are added"):
                slip(lambda dy, ids, dtable: gradient(dy[:1], ids[:1])),
            _("only the last sentence of the batch is used: the gradients of all sentences are added"):
                slip(lambda dy, ids, dtable: gradient(dy[-1:], ids[-1:])),
        }},
    )
