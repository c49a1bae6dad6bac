"""Checks of the losses: cross entropy, and the error of removed patches."""
import numpy as np

from tinymae.learn.inputs import gaussian, total
from tinymae.learn.judge import Tables
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _
from tinymae.ops import losses, softmax


def check_cross_entropy(names: dict) -> Tables:
    """With label smoothing, and padding that does not count."""
    def loss(logits, targets, ignore_index=None, label_smoothing=0.1):
        return losses.cross_entropy_forward(logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing)[0]

    def slip(difference=lambda p, q, one_hot: p - q, divisor=None, target=0.9, spread=0.1, where=0):
        """difference(p, q, 1[v = t]) in place of p - q, divided by another number than M; target and spread make q."""
        def dlogits(dloss, logits, targets, **_options):
            counts, one_hot = targets != 0, np.eye(11)[targets]
            p = softmax.softmax_forward(logits)[0]
            number = counts.sum() if divisor is None else divisor
            return dloss * difference(p, target * one_hot + spread / 11, one_hot) * (counts != where)[..., None] / number
        return dlogits

    targets = np.random.default_rng(0).integers(1, 11, (3, 5)) * (np.arange(5) < np.array([5, 3, 4])[:, None])
    yield from check_pair(
        names, "cross_entropy", losses.cross_entropy_forward, gaussian(3, 5, 11),
        targets=targets, ignore_index=0, label_smoothing=0.1, variants={
            _("the mean is taken over all positions: it should be over those that count"):
                lambda logits, targets, **_options: loss(logits, targets, 0) * (targets != 0).mean(),
            _("padding counts like a token: a target that is ignore_index does not count"):
                lambda logits, targets, **_options: loss(logits, targets),
            _("the labels are not smoothed"): lambda logits, targets, **_options: loss(logits, targets, 0, 0.0),
        }, gradients={"logits": {
            _("the smoothing is missing in (5): q is 1 at the target, and 0 elsewhere"): slip(target=1.0, spread=0.0),
            _("e / V is missing in the q of (5)"): slip(spread=0.0),
            _("the factor 1 - e is missing in the q of (5)"): slip(target=1.0),
            _("e is not divided by V in the q of (5)"): slip(spread=0.1 * 11),
            _("(5) is divided by the number of all positions: M is the number of positions that count, without padding"):
                slip(divisor=15),
            _("(5) is divided by the size of the batch: M is the number of positions that count"): slip(divisor=3),
            _("(5) is divided by the length of a row: M is the number of positions that count"): slip(divisor=5),
            _("(5) is divided by the number of positions that count in each row: M is their number in all rows"):
                slip(divisor=(targets != 0).sum(axis=1)[:, None, None]),
            _("(5) is -q / p, the gradient of the probabilities: that of the logits is (p - q) / M"):
                slip(lambda p, q, _one: -q / p),
            _("only the positions that do not count get a gradient: it is 0 there, and (p - q) / M at the others"):
                slip(where=1),
            _("(5) is p alone: q is subtracted"): slip(lambda p, q, _one: p),
            _("(5) is -q alone, the gradient of the log probabilities: that of the logits is (p - q) / M"):
                slip(lambda p, q, _one: -q),
            _("(5) has log p in place of p"): slip(lambda p, q, _one: np.log(p) - q),
            _("p - q goes back through the softmax once more: it is already the gradient of the logits"):
                slip(lambda p, q, _one: p * ((p - q) - total(p * (p - q)))),
            _("p - q is multiplied by p: it is already the gradient of the logits"): slip(lambda p, q, _one: p * (p - q)),
            _("p - q is multiplied by q: all tokens of the vocabulary have a gradient"): slip(lambda p, q, _one: q * (p - q)),
            _("only the logit of the target has a gradient: those of all tokens have one, (p - q) / M"):
                slip(lambda p, q, one_hot: one_hot * (p - q)),
            _("1 is subtracted from all of p: it is q, which is large at the target alone"): slip(lambda p, q, _one: p - 1),
            _("p - q is squared: it is the gradient of the cross entropy as it is"): slip(lambda p, q, _one: (p - q) ** 2),
        }},
    )


def check_masked_mse(names: dict) -> Tables:
    """With six removed patches of fifteen, not equally many in each image: their mean is not a mean of means."""
    mask, width = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]), 7
    every, shown, right = np.ones_like(mask), 1 - mask, int(mask.sum()) * width

    def variant(counts, number, error=np.square):
        return lambda pred, target, mask: np.vdot(counts, error(pred - target).sum(axis=-1)) / number

    def slip(error, counts=mask, number=right):
        """dpred with a mistake: error(pred - target) in place of 2 (pred - target), other patches or another divisor."""
        return lambda dloss, pred, target, mask: dloss * counts[..., None] * error(pred - target) / number

    yield from check_pair(
        names, "masked_mse", losses.masked_mse_forward, gaussian(3, 5, width),
        target=gaussian(3, 5, width, seed=1), mask=mask, variants={
            _("the mean is taken over all patches: it should be over the removed patches"): variant(mask, mask.size * width),
            _("the mask is not used: visible patches do not count"): variant(every, mask.size * width),
            _("the mask is inverted: 1 = removed, and removed patches count"): variant(shown, shown.sum() * width),
            _("the mask is inverted in the sum alone: 1 = removed, and removed patches count"): variant(shown, right),
            _("the mask is inverted in the divisor alone: the sum of the mask is the number of removed patches"):
                variant(mask, shown.sum() * width),
            _("the mask is inverted, and the mean is taken over all patches: 1 = removed, and removed patches count"):
                variant(shown, mask.size * width),
            _("all patches are summed, and the sum is divided by the number of removed ones: visible patches do not count"):
                variant(every, right),
            _("the squares in a patch are summed: take their mean"): variant(mask, mask.sum()),
            _("nothing is divided: take the mean"): variant(mask, 1),
            _("the errors of the patches are summed: divide by the sum of the mask"): variant(mask, width),
            _("it is divided by the number of images: it should be the number of removed patches"): variant(mask, width * 3),
            _("it is divided by the number of patches in an image: it should be the number of removed patches"):
                variant(mask, width * 5),
            _("it has the absolute error: it is the squared error"): variant(mask, right, np.abs),
            _("it has the error itself, whose signs cancel: it is the squared error"):
                variant(mask, right, lambda error: error),
            _("it has half of the squared error: the factor 1 / 2 is not in (1)"): variant(mask, 2 * right),
            _("its square root is taken: (1) is the mean of the squares"):
                lambda pred, target, mask: np.sqrt(variant(mask, right)(pred, target, mask)),
            _("the square root of the error of each patch is taken: (1) has the mean of the squares"):
                lambda pred, target, mask: np.vdot(mask, np.sqrt(np.square(pred - target).mean(axis=-1))) / mask.sum(),
            _("the error is averaged over a patch before it is squared: square first, then take the mean"):
                lambda pred, target, mask: np.vdot(mask, np.square((pred - target).mean(axis=-1))) / mask.sum(),
            _("the mask multiplies pred alone: it multiplies the squared error of the patch"):
                lambda pred, target, mask: variant(every, right)(pred * mask[..., None], target, mask),
            _("pred is squared and target is not subtracted"): lambda pred, target, mask: variant(mask, right)(pred, 0, mask),
            _("the squares of pred and target are subtracted: square the difference"):
                lambda pred, target, mask: np.vdot(mask, (pred * pred - target * target).sum(axis=-1)) / right,
            _("the mean is taken in each image first, then over the images: it should be over all removed patches at once"):
                variant(mask / total(mask, axis=1), 3 * width),
        }, gradients={"pred": {
            _("the factor 2 of (2) is missing: it comes from the square"): slip(lambda error: error),
            _("(2) is not divided by P: (1) has the mean over the P numbers of a patch"):
                slip(lambda error: 2 * error, number=mask.sum()),
            _("the gradient is that of the absolute error, the sign of pred - target: it is 2 (pred - target)"): slip(np.sign),
            _("the error is squared in backward, too: the derivative of its square is 2 (pred - target)"): slip(np.square),
            _("the error is squared in backward, too, and doubled: the derivative of its square is 2 (pred - target)"):
                slip(lambda error: 2 * error * error),
            _("the mask is inverted in backward: removed patches get the gradient"): slip(lambda error: 2 * error, shown),
            _("the mask is inverted in backward, in the sum and in the divisor: removed patches get the gradient"):
                slip(lambda error: 2 * error, shown, width * shown.sum()),
            _("pred is in the place of pred - target: the target is subtracted"):
                lambda dloss, pred, target, mask: dloss * mask[..., None] * 2 * pred / right,
            _("it is divided by the number of removed patches in each image: it should be the number in all images"):
                slip(lambda error: 2 * error, mask / total(mask, axis=1), width),
            _("it is divided neither by P nor by the sum of the mask"): slip(lambda error: 2 * error, number=1),
        }},
    )
