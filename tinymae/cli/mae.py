"""Commands of the masked autoencoder: demo, train mae, reconstruct."""
import argparse
from dataclasses import replace
from pathlib import Path

from tinymae.cli.options import (
    IMAGE_DATA,
    RESUME,
    add_folder,
    add_heads,
    add_img_size,
    add_key,
    add_length,
    add_ranks,
    add_run,
    given,
)
from tinymae.messages import marked, translated
from tinymae.messages import message as _

_MODEL = marked("folder that demo or train mae wrote to (default: the model in the package)")
_MAE_SIZES = ("patch_size", "embed_dim", "depth", "num_heads", "decoder_embed_dim", "decoder_depth", "decoder_num_heads")


def _training_options(parser):
    parser.add_argument("--data", default="photos", help=translated(IMAGE_DATA))
    parser.add_argument("--mask-ratio", type=float, default=0.75, help=_("fraction of the patches to hide, in [0, 1)"))
    parser.add_argument("--norm-pix-loss", action="store_true", help=_("predict each patch without its mean and contrast"))
    add_length(parser, minutes=_("default: 2.5, digits 0.5"))
    add_run(parser)


def _length(data, steps, minutes):
    from tinymae.images.sources import find_source

    if steps is None and minutes is None:
        minutes = find_source(data).mae_minutes
    return {"steps": steps, "minutes": minutes}


def add_demo(commands: argparse._SubParsersAction) -> None:
    """`demo`."""
    demo = commands.add_parser("demo", help=_("train a masked autoencoder, restore images it was not trained on"))
    _training_options(demo)
    demo.add_argument("--out", type=Path, default=Path("figures"), help=_("folder for figures, table, model (default: "
                                                                          "figures)"))
    demo.set_defaults(command=_demo)


def _demo(data, out, steps, minutes, **options):
    from tinymae.tasks.demo import demo

    demo(data, out, **_length(data, steps, minutes), **options, say=print)
    return 0


def add_train(models: argparse._SubParsersAction) -> None:
    """`train mae`."""
    mae = models.add_parser("mae", help=_("a masked autoencoder"))
    _training_options(mae)
    add_folder(mae, out=_("folder for the model, mae.npz"))
    sizes = mae.add_argument_group(_("sizes; the default is a small model that fits the images"))
    add_img_size(sizes, _("of images, or of crops of photographs; 64 for 64 x 64"))
    for name in _MAE_SIZES:
        sizes.add_argument(f"--{name.replace('num_', '').replace('_', '-')}", type=int, dest=name)
    mae.add_argument("--batch", type=int, help=_("images in a step (default: 32)"))
    mae.add_argument(
        "--vary", action="store_true", help=_("hide another fraction of the patches each time, 0.05 to 0.95: for any kind of "
                                              "hole")
    )
    add_ranks(mae, _train_mae)


def _train_mae(
    data, out, steps, minutes, mask_ratio, norm_pix_loss, seed, threads, resume, overwrite, save_every, vary, batch, ranks,
    **sizes
):
    from tinymae.tasks.restore import prepare, train_mae

    task = prepare(data, mask_ratio, norm_pix_loss, given(sizes), vary=vary)
    task = replace(task, batch=batch or task.batch)
    run = train_mae(
        task, out, **_length(data, steps, minutes), seed=seed, threads=threads, resume=resume, overwrite=overwrite,
        save_every=save_every, extra={"data": data}, ranks=ranks,
    )
    print(_("{steps} steps, loss on validation images {loss:.4f}: {path}",
            steps=run.step, loss=run.evaluations[-1][1], path=out / "mae.npz"))
    if run.interrupted:
        print(translated(RESUME))
    return 0


def add_evaluate(models: argparse._SubParsersAction) -> None:
    """`evaluate mae`."""
    evaluate = models.add_parser("mae", help=_("error of a masked autoencoder on hidden pixels, beside simple fills"))
    evaluate.add_argument("--model", type=Path, help=translated(_MODEL))
    evaluate.add_argument("--data", default="photos", help=_("{data}: its validation set", data=translated(IMAGE_DATA)))
    evaluate.set_defaults(command=_evaluate_mae)


def _evaluate_mae(model, data):
    from tinymae.tasks.reconstruct import own_model
    from tinymae.tasks.restore import prepare, table, table_lines

    it = own_model(model)
    task = prepare(data, it.config.mask_ratio, sizes={"img_size": it.config.img_size, "patch_size": it.config.patch_size})
    if task.config.in_chans != it.config.in_chans:
        raise ValueError(_("{data}: expected images of {expected} channels, as the model's, got {got}",
                           data=data, expected=it.config.in_chans, got=task.config.in_chans))
    orientations = 8 if it.turned else 1
    measured = {
        name: table(images, it.params, it.config, orientations, biharmonic=True) for name, images in task.validation.items()
    }
    print(*table_lines(measured), sep="\n")
    return 0


def add_reconstruct(commands: argparse._SubParsersAction) -> None:
    """`reconstruct`."""
    reconstruct = commands.add_parser("reconstruct", help=_("hide a part of your own photograph and restore it"))
    reconstruct.add_argument("picture", metavar="PICTURE", type=Path, help=_("an image file, or grace_hopper, cat or coffee"))
    which = reconstruct.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, help=translated(_MODEL))
    which.add_argument("--weights", type=Path, metavar="FILE", help=_("a published model: .pth or Hugging Face folder"))
    add_heads(reconstruct, decoder=True)
    add_key(reconstruct)
    add_img_size(reconstruct, _("of a tile of the photograph, with interpolated positions (default: as in training)"))
    reconstruct.add_argument(
        "--mask", default="random", metavar="MASK",
        help=_("what is hidden: random (default), block or grid, or an image FILE of the photograph's size that is white "
               "there"),
    )
    reconstruct.add_argument("--mask-ratio", type=float, help=_("fraction of the patches to hide (default: as in training)"))
    reconstruct.add_argument(
        "--detail", type=int, metavar="N", help=_("patches along the shorter side (default: 48, or what suits a FILE's holes)")
    )
    reconstruct.add_argument("--seed", type=int, default=1, help=_("which patches are hidden"))
    reconstruct.add_argument("--threads", type=int, help=_("default: one for each core"))
    reconstruct.add_argument(
        "--out", type=Path, help=_("the photograph to write, in any format of Pillow (default: figures/PICTURE_restored.png)")
    )
    reconstruct.add_argument("--figure", type=Path, metavar="FILE.png", help=_("draw what was visible, restored and there "
                                                                               "before"))
    reconstruct.set_defaults(command=_reconstruct)


def _reconstruct(picture, model, weights, out, img_size, mask, mask_ratio, detail, seed, threads, figure, **published):
    from tinymae.tasks.reconstruct import own_model, published_model, reconstruct

    out = out or Path("figures", f"{picture.stem}_restored.png")
    if weights:
        loaded = published_model(weights, img_size, **published)
    elif unused := given(published):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ValueError(_("got {options}, for published weights alone (--weights): a model trained here needs no such option",
                           options=options))
    else:
        loaded = own_model(model, img_size)
    restored = reconstruct(
        picture, loaded, out, figure=figure, mask=mask, mask_ratio=mask_ratio, detail=detail, seed=seed, threads=threads,
        bar=True,
    )
    rows, cols = restored.photo.shape[:2]
    scale = min(rows, cols) / min(restored.small.shape[:2])
    scaled = "1" if scale <= 1 else f"1/{scale:.3g}"
    hidden = restored.hidden
    print(_("{cols} x {rows} pixels; {share:.0%} of {patches} patches hidden, {shorter} along the shorter side; restored at "
            "{scale} of the photograph's scale",
            cols=cols, rows=rows, share=hidden.mean(), patches=hidden.size, shorter=min(hidden.shape),
            scale=scaled))
    if detail and min(hidden.shape) != detail:
        print(_("--detail {detail}: the photograph and the model's tiles allow {allowed}",
                detail=detail, allowed=min(hidden.shape)))
    print(out)
    if figure:
        print(figure)
    return 0
