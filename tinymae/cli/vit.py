"""Commands of the classifier: train vit, evaluate vit, probe."""
import argparse
from pathlib import Path

from tinymae.cli.options import (
    LABELLED_DATA,
    RESUME,
    add_folder,
    add_heads,
    add_img_size,
    add_key,
    add_length,
    add_ranks,
    add_run,
    given,
    with_options,
)
from tinymae.messages import message as _
from tinymae.messages import padded, translated


def add_train(models: argparse._SubParsersAction) -> None:
    """`train vit`."""
    parser = models.add_parser("vit", help=_("a Vision Transformer that classifies images"))
    parser.add_argument("--data", required=True, help=_("{data}; the last fifth is the validation set",
                                                        data=translated(LABELLED_DATA)))
    parser.add_argument(
        "--from", dest="from_folder", type=Path, metavar="DIR", help=_("fine-tune this encoder: a folder, or a file of weights")
    )
    add_key(parser)
    add_length(parser, minutes=_("default: 9, digits 1"), epochs=_("go through the training images this many times"))
    add_run(parser)
    add_folder(parser, out=_("folder for the model, vit.npz"))
    model = parser.add_argument_group(_("model and training; the defaults fit the data"))
    model.add_argument("--heads", type=int, dest="num_heads", help=_("also of published weights that do not say it, with "
                                                                     "--from"))
    add_img_size(model, _("to which images are scaled; with --from, positions are interpolated"))
    for name in ("patch-size", "embed-dim", "depth", "batch", "shift"):
        model.add_argument(f"--{name}", type=int, help=_("pixels by which images are moved") if name == "shift" else None)
    model.add_argument("--pool", choices=("token", "mean"), help=_("class token, or mean of the patches"))
    model.add_argument("--positions", dest="position_encoding", choices=("learned", "fixed"))
    for name in ("dropout", "lr", "weight-decay", "label-smoothing", "mixup", "layer-decay"):
        model.add_argument(f"--{name}", type=float)
    model.add_argument("--flip", action=argparse.BooleanOptionalAction, help=_("mirror images (default: colour ones)"))
    add_ranks(parser, _train_vit)


def _train_vit(
    data, from_folder, key, epochs, steps, minutes, seed, threads, out, resume, overwrite, save_every, ranks, **options
):
    from tqdm import tqdm

    from tinymae.images.labelled import load_labelled
    from tinymae.images.sources import find_source
    from tinymae.tasks.classify import classifier_settings, evaluate_classifier, train_vit

    labelled = load_labelled(data)
    if epochs is None and steps is None and minutes is None:
        minutes = find_source(data).vit_minutes
    settings = None                                             # a resumed run goes on with its own
    if given(options) or not resume:
        settings = with_options(classifier_settings(labelled, from_folder is not None), options)
    run = train_vit(
        labelled, out, settings, steps=steps, minutes=minutes, epochs=epochs, from_folder=from_folder, key=key, seed=seed,
        threads=threads, resume=resume, overwrite=overwrite, save_every=save_every, say=tqdm.write,
        ranks=ranks,
    )
    if run.interrupted:
        print(translated(RESUME), flush=True)
    if ranks.rank:
        return 0
    result = evaluate_classifier(out, labelled, threads=threads)
    print(_("{steps} steps, {seconds:.0f} s; accuracy {accuracy:.2%} on {count} validation images",
            steps=run.step, seconds=run.seconds, accuracy=result["accuracy"], count=result["pictures"]))
    print(out / "vit.npz")
    return 0


def add_evaluate(models: argparse._SubParsersAction) -> None:
    """`evaluate vit`."""
    judge = models.add_parser("vit", help=_("accuracy and confusions of a classifier"))
    judge.add_argument("--model", type=Path, required=True, help=_("folder that train vit wrote to"))
    judge.add_argument("--data", required=True, help=_("{data}; the last fifth of it is evaluated",
                                                       data=translated(LABELLED_DATA)))
    judge.add_argument("--whole", action="store_true", help=_("all of the data, if none of it was trained on"))
    judge.add_argument("--rollout", type=Path, metavar="FILE.png", help=_("draw what the model attends to in six images"))
    judge.set_defaults(command=_evaluate_vit)


def _evaluate_vit(model, data, whole, rollout):
    from tinymae.images.labelled import load_labelled
    from tinymae.tasks.classify import evaluate_classifier

    labelled = load_labelled(data)
    result = evaluate_classifier(model, labelled, whole=whole)
    names, confusion = result["names"], result["confusion"]
    print(_("accuracy {accuracy:.2%} on {count} images", accuracy=result["accuracy"], count=result["pictures"]))
    if len(names) <= 20:
        wide = max(5, *(len(name) + 1 for name in names))
        print("\n" + _("true class down, predicted class across"))
        print(" " * wide + "".join(f"{name:>{wide}}" for name in names))
        for name, row in zip(names, confusion, strict=True):
            print(f"{name:>{wide}}" + "".join(f"{count:{wide}}" for count in row))
    if rollout:
        _draw_rollout(model, labelled, rollout)
    return 0


def _draw_rollout(model, labelled, path):
    from tinymae import plot
    from tinymae.images.labelled import fit_pictures
    from tinymae.images.pixels import to_pixels
    from tinymae.models.attention_maps import attention_rollout, vit_attention
    from tinymae.tasks.classify import Classifier

    classifier = Classifier.load(model)
    config = classifier.config
    pictures = fit_pictures(labelled.split()[1].images[:6], config.img_size, config.in_chans)
    rollout = attention_rollout(vit_attention(to_pixels(pictures), classifier.params, config))
    seen, caption = rollout[:, 0, 1:], None                     # by the class token
    if config.pool == "mean":
        seen = rollout[:, 1:, 1:].mean(axis=1)
        caption = _("How to read it: the brighter a patch, the more of it reaches the mean of all patches, from which this "
                    "model predicts the class, through all layers together. Each image has its own scale, from 0 to its "
                    "brightest patch.")
    print(plot.save(plot.rollout_over_pictures(pictures, seen, config.grid, caption=caption), path))


def add_probe(commands: argparse._SubParsersAction) -> None:
    """`probe`."""
    probe = commands.add_parser("probe", help=_("what an encoder has learned: simple classifiers on its frozen features"))
    probe.add_argument("--model", type=Path, required=True, help=_("folder of a masked autoencoder or a ViT, or a published "
                                                                   "one"))
    probe.add_argument("--data", required=True, help=_("{data}; the last fifth is for testing", data=translated(LABELLED_DATA)))
    add_heads(probe)
    add_key(probe)
    add_img_size(probe, _("to which images are scaled, with interpolated positions (default: as the model was trained)"))
    probe.add_argument("--per-class", type=int, metavar="N", help=_("train on N labels a class, drawn ten times (default: "
                                                                    "all)"))
    probe.set_defaults(command=_probe)


def _probe(model, data, per_class, heads, img_size, key):
    from tinymae.images.labelled import load_labelled
    from tinymae.tasks.probe import probe

    report = probe(model, load_labelled(data), per_class=per_class, heads=heads, img_size=img_size, key=key)
    print(_("accuracy on {test} test images, trained on {train} labels", test=report["test"], train=report["train"]))
    print(" " * 26 + "".join(padded(view, 20, right=True) for view in (_("encoder features"), _("raw pixels"))))
    for key, label in (("linear", _("logistic regression")), ("knn", _("nearest neighbours"))):
        cells = [f"{report[view][key]:.2%} +- {report['deviations'][view][key]:.2%}" for view in ("features", "pixels")]
        cells = cells if per_class else [cell.partition(" +-")[0] for cell in cells]
        print(padded(label, 26) + "".join(f"{cell:>20}" for cell in cells))
    return 0
