"""python -m tinymae: the main job, and everything else that runs from the command line."""
import argparse
import math
import sys
import warnings
from pathlib import Path


def main(arguments=None):
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments = ["demo", *arguments]
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        with warnings.catch_warnings():                         # a warning is one line, without the code that gave it
            warnings.showwarning = lambda message, *where: print(f"tinymae: {message}", file=sys.stderr)
            return command(**options)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"tinymae: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tinymae: interrupted", file=sys.stderr)
        return 130


def _parser():
    from tinymae import __version__

    parser = argparse.ArgumentParser(
        prog="python -m tinymae", description="The Transformer you can read. Without a command: the demo."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train a masked autoencoder and restore pictures it has never seen")
    _training_options(demo)
    demo.add_argument("--out", type=Path, default=Path("figures"), help="folder for pictures, table, model (default: figures)")
    demo.set_defaults(command=_demo)

    train = commands.add_parser("train", help="train a model, and keep it").add_subparsers(required=True, metavar="MODEL")
    mae = train.add_parser("mae", help="a masked autoencoder")
    _training_options(mae)
    mae.add_argument("--out", type=Path, required=True, help="folder for the model, mae.npz")
    mae.add_argument("--resume", action="store_true", help="go on with the model in the folder")
    mae.set_defaults(command=_train_mae)

    translate = train.add_parser("translate", help="an encoder-decoder Transformer")
    translate.add_argument(
        "--data", nargs="+", default=["phrasebook"], metavar="DATA",
        help="phrasebook, dates, a tab-separated file, or a source and a target file (.gz too)",
    )  # fmt: skip
    length = translate.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="train for so many steps: the same result every time")
    length.add_argument("--minutes", type=float, help="train for so long (default: 3)")
    translate.add_argument("--seed", type=int, default=0)
    translate.add_argument("--threads", type=int, help="default: one for each core")
    translate.add_argument("--min-count", type=int, default=1, help="rarer words become <unk> (default: 1)")
    translate.add_argument("--out", type=Path, required=True, help="folder for model and vocabularies")
    translate.add_argument("--resume", action="store_true", help="go on with the model in the folder")
    translate.set_defaults(command=_train_translate)

    use = commands.add_parser("translate", help="translate with a model of your own")
    use.add_argument("text", nargs="*", metavar="TEXT", help="sentences; without any, lines from standard input")
    use.add_argument("--model", type=Path, required=True, help="folder that train translate wrote to")
    use.add_argument("--beam", type=int, default=1, help="beginnings to keep; 1 is greedy (default)")
    use.add_argument("--attention", type=Path, metavar="FILE.png", help="draw where each word looked (one TEXT)")
    use.set_defaults(command=_translate)

    judge = commands.add_parser("evaluate", help="measure a model").add_subparsers(required=True, metavar="MODEL")
    judge = judge.add_parser("translate", help="BLEU, exact match and perplexity of translations")
    judge.add_argument("--model", type=Path, required=True, help="folder that train translate wrote to")
    judge.add_argument("--data", nargs="+", required=True, metavar="DATA", help="phrasebook, dates, or files")
    judge.add_argument("--beam", type=int, default=1, help="beginnings to keep; 1 is greedy (default)")
    judge.set_defaults(command=_evaluate_translate)

    reconstruct = commands.add_parser("reconstruct", help="hide patches of your own photograph and restore them")
    reconstruct.add_argument("picture", metavar="PICTURE", type=Path)
    reconstruct.add_argument("--model", type=Path, required=True, help="folder that demo or train mae wrote to")
    reconstruct.add_argument("--mask-ratio", type=float, help="share of the patches to hide (default: as in training)")
    reconstruct.add_argument("--seed", type=int, default=1, help="which patches are hidden")
    reconstruct.add_argument("--out", type=Path, help="the .png to write (default: figures/PICTURE_restored.png)")
    reconstruct.set_defaults(command=_reconstruct)

    gradcheck = commands.add_parser("gradcheck", help="prove every gradient: one row for each tensor")
    gradcheck.add_argument("--seed", type=int, default=0)
    gradcheck.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file, too")
    gradcheck.set_defaults(command=_gradcheck)
    return parser


def _training_options(parser):
    parser.add_argument(
        "--data", default="photos", help="photos, digits, openml:NAME, or a path: folder of pictures, IDX file (.gz), .npz"
    )
    parser.add_argument("--mask-ratio", type=float, default=0.75, help="share of the patches to hide, in [0, 1)")
    parser.add_argument("--norm-pix-loss", action="store_true", help="predict each patch without its mean and contrast")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="train for so many steps: the same result every time")
    length.add_argument("--minutes", type=float, help="train for so long (default: 2.5, digits 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: one for each core")


def _length(data, steps, minutes):
    if steps is None and minutes is None:
        minutes = 0.5 if data == "digits" else 2.5
    return {"steps": steps, "minutes": minutes}


def _demo(data, out, steps, minutes, **options):
    from tinymae.demo import demo

    demo(data, out, **_length(data, steps, minutes), **options)
    return 0


def _train_mae(data, out, steps, minutes, mask_ratio, norm_pix_loss, seed, threads, resume):
    from tinymae.demo import prepare, train_mae

    task = prepare(data, mask_ratio, norm_pix_loss)
    run = train_mae(task, out, **_length(data, steps, minutes), seed=seed, threads=threads, resume=resume, extra={"data": data})
    print(f"{run.step} steps, loss on unseen pictures {run.evaluations[-1][1]:.4f}: {out / 'mae.npz'}")
    if run.interrupted:
        print("interrupted; the same command with --resume goes on from here")
    return 0


def _train_translate(data, out, steps, minutes, seed, threads, min_count, resume):
    from tqdm import tqdm

    from tinymae.translation import Translator, load_corpus, train_translator

    corpus = load_corpus(data, seed)
    print(f"{len(corpus.train)} sentence pairs to learn from, {len(corpus.held_out)} held out")
    minutes = 3 if steps is None and minutes is None else minutes
    run = train_translator(
        corpus, out, None, steps, minutes, seed, threads, resume, min_count, say=tqdm.write
    )
    sources, references = zip(*corpus.held_out, strict=True)
    translator = Translator.load(out)
    exact = sum(map(translator.exact, translator.translate(sources), references)) / len(references)
    print(f"{run.step} steps, {run.seconds:.0f} s; exact match on {len(references)} held-out pairs: {exact:.2%}")
    print(out)
    return 0


def _translate(text, model, beam, attention):
    from tinymae.translation import Translator

    translator = Translator.load(model)
    if attention:
        from tinymae import plot

        if len(text) != 1:
            raise ValueError(f"--attention draws one sentence, got {len(text)}")
        sources, words, decoded = translator.decode(text[0], beam)
        weights = decoded.cross[0].mean(axis=0)                 # (H, T, Tk), the mean over layers
        print(plot.save(plot.attention(weights[:, : len(words)], words, sources), attention), file=sys.stderr)
    for line in text or (line.rstrip("\n") for line in sys.stdin):
        print(translator.translate([line], beam)[0], flush=True)
    return 0


def _evaluate_translate(model, data, beam):
    from tinymae.translation import Translator, evaluate, load_corpus, read_pairs

    pairs = load_corpus(data).held_out if data in (["phrasebook"], ["dates"]) else read_pairs(data)
    for name, value in evaluate(Translator.load(model), pairs, beam).items():
        print(f"{name:12}{value if isinstance(value, str) else format(value, '.4f')}")
    return 0


def _reconstruct(picture, model, mask_ratio, seed, out):
    from tinymae.demo import reconstruct

    print(reconstruct(picture, model, out or Path("figures", f"{picture.stem}_restored.png"), mask_ratio, seed))
    return 0


def _gradcheck(seed, json):
    from dataclasses import asdict
    from json import dumps

    from tinymae.checks import run_checks
    from tinymae.gradcheck import format_rows

    layout = "{:52} {:>7}  {:34} {:14} {:>8}  {}"
    print(layout.format("op, block or model", "tensors", "worst of them", "at", "error", "verdict"))
    report = []
    for check, rows in run_checks(seed):
        worst = max(rows, key=lambda row: row.error)
        verdict = "ok" if all(row.ok for row in rows) else "WRONG"
        print(layout.format(check.name, len(rows), worst.tensor, str(list(worst.worst)), f"{worst.error:.1e}", verdict))
        if verdict == "WRONG":
            print(format_rows(check.name, [row for row in rows if not row.ok]))
        report += [{"check": check.name, **{k: _json(v) for k, v in asdict(row).items()}} for row in rows]
    wrong = sum(not row["ok"] for row in report)
    print(f"\n{len(report)} tensors, {wrong} wrong")
    if json:
        json.write_text(dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json)
    return 1 if wrong else 0


def _json(value):
    """JSON has no NaN and no infinity: null stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
