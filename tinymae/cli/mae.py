"""Commands of the masked autoencoder: demo, train mae, reconstruct."""
import argparse
from pathlib import Path

from tinymae.cli.options import IMAGE_DATA, RESUME, add_folder, add_heads, add_img_size, add_length, add_run, given

_MAE_SIZES = ("patch_size", "embed_dim", "depth", "num_heads", "decoder_embed_dim", "decoder_depth", "decoder_num_heads")


def _training_options(parser):
    parser.add_argument("--data", default="photos", help=IMAGE_DATA)
    parser.add_argument("--mask-ratio", type=float, default=0.75, help="fraction of the patches to hide, in [0, 1)")
    parser.add_argument("--norm-pix-loss", action="store_true", help="predict each patch without its mean and contrast")
    add_length(parser, minutes="default: 2.5, digits 0.5")
    add_run(parser)


def _length(data, steps, minutes):
    from tinymae.images.sources import find_source

    if steps is None and minutes is None:
        minutes = find_source(data).mae_minutes
    return {"steps": steps, "minutes": minutes}


def add_demo(commands: argparse._SubParsersAction) -> None:
    """`demo`."""
    demo = commands.add_parser("demo", help="train a masked autoencoder, restore images it was not trained on")
    _training_options(demo)
    demo.add_argument("--out", type=Path, default=Path("figures"), help="folder for figures, table, model (default: figures)")
    demo.set_defaults(command=_demo)


def _demo(data, out, steps, minutes, **options):
    from tinymae.tasks.demo import demo

    demo(data, out, **_length(data, steps, minutes), **options, say=print)
    return 0


def add_train(models: argparse._SubParsersAction) -> None:
    """`train mae`."""
    mae = models.add_parser("mae", help="a masked autoencoder")
    _training_options(mae)
    add_folder(mae, out="folder for the model, mae.npz")
    sizes = mae.add_argument_group("sizes; the default is a small model that fits the images")
    add_img_size(sizes, "of images, or of crops of photographs; 64 for 64 x 64")
    for name in _MAE_SIZES:
        sizes.add_argument(f"--{name.replace('num_', '').replace('_', '-')}", type=int, dest=name)
    mae.set_defaults(command=_train_mae)


def _train_mae(
    data, out, steps, minutes, mask_ratio, norm_pix_loss, seed, threads, resume, overwrite, save_every, **sizes
):
    from tinymae.tasks.restore import prepare, train_mae

    task = prepare(data, mask_ratio, norm_pix_loss, given(sizes))
    run = train_mae(
        task, out, **_length(data, steps, minutes), seed=seed, threads=threads, resume=resume, overwrite=overwrite,
        save_every=save_every, extra={"data": data},
    )
    print(f"{run.step} steps, loss on validation images {run.evaluations[-1][1]:.4f}: {out / 'mae.npz'}")
    if run.interrupted:
        print(RESUME)
    return 0


def add_reconstruct(commands: argparse._SubParsersAction) -> None:
    """`reconstruct`."""
    reconstruct = commands.add_parser("reconstruct", help="hide patches of your own photograph and restore them")
    reconstruct.add_argument("picture", metavar="PICTURE", type=Path)
    which = reconstruct.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="folder that demo or train mae wrote to")
    which.add_argument("--weights", type=Path, metavar="FILE", help="a published model: .pth or Hugging Face folder")
    add_heads(reconstruct, decoder=True)
    add_img_size(reconstruct, "at which the model sees the photograph, with interpolated positions (default: as in training)")
    reconstruct.add_argument("--mask-ratio", type=float, help="fraction of the patches to hide (default: as in training)")
    reconstruct.add_argument("--seed", type=int, default=1, help="which patches are hidden")
    reconstruct.add_argument("--out", type=Path, help="the .png to write (default: figures/PICTURE_restored.png)")
    reconstruct.set_defaults(command=_reconstruct)


def _reconstruct(picture, model, weights, mask_ratio, seed, out, img_size, heads, decoder_heads):
    from tinymae.tasks.restore import reconstruct, reconstruct_published

    out = out or Path("figures", f"{picture.stem}_restored.png")
    common = {"mask_ratio": mask_ratio, "img_size": img_size, "seed": seed}
    if weights:
        print(reconstruct_published(picture, weights, out, **common, heads=heads, decoder_heads=decoder_heads))
    elif heads or decoder_heads:
        raise ValueError("--heads and --decoder-heads are for published weights: a model trained here says how many it has")
    else:
        print(reconstruct(picture, model, out, **common))
    return 0
