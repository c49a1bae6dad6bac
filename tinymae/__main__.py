"""python -m tinymae: the main job, and everything else that runs from the command line."""
import argparse
import math
import os
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
            status = command(**options)
            sys.stdout.flush()
            return status
    except BrokenPipeError:                                     # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
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
    sizes = mae.add_argument_group("sizes; the default is a small model that fits the pictures")
    for name in _MAE_SIZES:
        sizes.add_argument(f"--{name.replace('_', '-')}", type=int)
    mae.set_defaults(command=_train_mae)

    _translate_options(train.add_parser("translate", help="an encoder-decoder Transformer"))

    _vit_options(train.add_parser("vit", help="a Vision Transformer that names pictures"))

    use = commands.add_parser("translate", help="translate with a model of your own, or a published one")
    use.add_argument("text", nargs="*", metavar="TEXT", help="sentences; without any, lines from standard input")
    which = use.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="folder that train translate wrote to")
    which.add_argument("--weights", type=Path, metavar="FOLDER", help="a Marian translator in Hugging Face's format")
    use.add_argument("--tokens", action="store_true", help="with --weights: TEXT and answer are ids; needs no tokenizer")
    use.add_argument("--beam", type=int, default=1, help="beginnings to keep; 1 is greedy (default)")
    use.add_argument("--attention", type=Path, metavar="FILE.png", help="draw where each word looked (one TEXT)")
    use.add_argument("--layer", type=int, help="of the decoder, from 0, for --attention (default: the mean over all layers)")
    use.set_defaults(command=_translate)

    mean = commands.add_parser("average", help="the mean of a translator's last evaluations, as a model of its own")
    mean.add_argument("--model", type=Path, required=True, help="folder that train translate wrote to")
    mean.add_argument("--last", type=int, default=5, help="how many evaluations (default, and at most: 5)")
    mean.add_argument("--out", type=Path, required=True, help="folder for the averaged model")
    mean.set_defaults(command=_average)

    judges = commands.add_parser("evaluate", help="measure a model").add_subparsers(required=True, metavar="MODEL")
    judge = judges.add_parser("vit", help="accuracy and confusions of a classifier")
    judge.add_argument("--model", type=Path, required=True, help="folder that train vit wrote to")
    judge.add_argument("--data", required=True, help=f"{_LABELLED}; the last fifth of it is looked at")
    judge.add_argument("--whole", action="store_true", help="all of the data, of which nothing was trained on")
    judge.add_argument("--rollout", type=Path, metavar="FILE.png", help="draw what the model looks at in six pictures")
    judge.set_defaults(command=_evaluate_vit)
    judge = judges.add_parser("translate", help="BLEU, exact match and perplexity of translations")
    judge.add_argument("--model", type=Path, required=True, help="folder that train translate wrote to")
    judge.add_argument("--data", nargs="+", required=True, metavar="DATA", help=f"{_PAIRS}; by name: its held-out pairs")
    judge.add_argument("--reverse", action="store_true", help="from the second language into the first")
    judge.add_argument("--beam", type=int, default=1, help="beginnings to keep; 1 is greedy (default)")
    judge.set_defaults(command=_evaluate_translate)

    probe = commands.add_parser("probe", help="what an encoder has learned: simple classifiers on its frozen features")
    probe.add_argument("--model", type=Path, required=True, help="folder of a masked autoencoder or a ViT, or a published one")
    probe.add_argument("--data", required=True, help=f"{_LABELLED}; the last fifth is for testing")
    probe.add_argument("--per-class", type=int, metavar="N", help="learn from N labels a class, drawn ten times (default: all)")
    probe.set_defaults(command=_probe)

    inspect = commands.add_parser("inspect", help="list the tensors of a file of weights: what model is it?")
    inspect.add_argument("file", metavar="FILE", type=Path, help=".pth, .bin, .safetensors, or a Hugging Face folder")
    inspect.set_defaults(command=_inspect)

    export = commands.add_parser("export", help="write a model trained here for the official MAE code or Hugging Face")
    export.add_argument("--model", type=Path, required=True, help="folder that train mae or train vit wrote to")
    export.add_argument("--to", required=True, choices=("mae", "vit-mae", "vit"), help="whose format")
    export.add_argument("file", metavar="FILE", type=Path, help="mae: .pth; vit-mae: Hugging Face folder; vit: either")
    export.set_defaults(command=_export)

    reconstruct = commands.add_parser("reconstruct", help="hide patches of your own photograph and restore them")
    reconstruct.add_argument("picture", metavar="PICTURE", type=Path)
    which = reconstruct.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="folder that demo or train mae wrote to")
    which.add_argument("--weights", type=Path, metavar="FILE", help="a published model: .pth or Hugging Face folder")
    reconstruct.add_argument("--mask-ratio", type=float, help="share of the patches to hide (default: as in training)")
    reconstruct.add_argument("--seed", type=int, default=1, help="which patches are hidden")
    reconstruct.add_argument("--out", type=Path, help="the .png to write (default: figures/PICTURE_restored.png)")
    reconstruct.set_defaults(command=_reconstruct)

    lessons = commands.add_parser("lessons", help="list the lessons")
    lessons.set_defaults(command=_lessons)

    lesson = commands.add_parser("lesson", help="run a lesson, or walk through it cell by cell")
    lesson.add_argument("number", type=int, metavar="N", help="its number in the list")
    lesson.add_argument("--step", action="store_true", help="cell by cell: read, press Enter, look, go on")
    lesson.set_defaults(command=_lesson)

    exercise = commands.add_parser("exercise", help="write an exercise, or a bug of the zoo, for you to solve")
    exercise.add_argument("name", nargs="?", metavar="NAME", help="which one (default: list them)")
    exercise.set_defaults(command=_exercise)

    check = commands.add_parser("check", help="check your solution of an exercise, and say what is wrong with it")
    check.add_argument("file", type=Path, metavar="FILE", help="what `exercise` wrote and you completed; it is executed")
    check.set_defaults(command=_check)

    gradcheck = commands.add_parser("gradcheck", help="prove every gradient: one row for each tensor")
    gradcheck.add_argument("--seed", type=int, default=0)
    gradcheck.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file, too")
    gradcheck.set_defaults(command=_gradcheck)
    return parser


_PAIRS = "phrasebook, dates, french, a tab-separated file, or a source and a target file (.gz too)"


def _translate_options(parser):
    parser.add_argument("--data", nargs="+", default=["phrasebook"], metavar="DATA", help=_PAIRS)
    parser.add_argument("--valid", nargs="+", metavar="FILE", help="pairs to be judged by (default: one in fifty of the data)")
    parser.add_argument("--reverse", action="store_true", help="translate from the second language into the first")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="go through the data so many times (default for files: 10)")
    length.add_argument("--steps", type=int, help="train for so many steps")
    length.add_argument("--minutes", type=float, help="train for so long (default: phrasebook 3, dates 1, french 0.2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and vocabularies")
    parser.add_argument("--resume", action="store_true", help="go on with the model in the folder")
    words = parser.add_argument_group("words")
    words.add_argument("--min-count", type=int, help="rarer words become <unk> (default: files of words 2, all else 1)")
    words.add_argument("--bpe", type=int, dest="pieces", metavar="N", help="N pieces of words (BPE) in place of words")
    words.add_argument("--source-vectors", type=Path, metavar="FILE", help="word vectors (word2vec, GloVe) to start from")
    words.add_argument("--target-vectors", type=Path, metavar="FILE", help="the same for the other language")
    words.add_argument("--freeze", action="store_true", help="do not train on the words that have such vectors")
    model = parser.add_argument_group("model and training; the defaults fit the data")
    for name in ("d-model", "encoder-layers", "decoder-layers", "heads", "d-ff", "tokens"):
        model.add_argument(f"--{name}", type=int, help="words in a batch" if name == "tokens" else None)
    model.add_argument("--dropout", type=float)
    model.add_argument("--post-norm", dest="norm_first", action="store_false", default=None, help="as in the paper")
    model.add_argument("--label-smoothing", type=float)
    model.add_argument("--lr", type=float, help="the highest learning rate")
    model.add_argument("--schedule", choices=("cosine", "noam"), help="of the learning rate (default: cosine)")
    model.add_argument("--warmup", type=int, help="steps of warm-up for noam (default: 4000, as in the paper)")
    parser.set_defaults(command=_train_translate)


_MAE_SIZES = (
    "patch_size", "embed_dim", "depth", "num_heads", "decoder_embed_dim", "decoder_depth", "decoder_num_heads",
)


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


_LABELLED = "digits, openml:NAME, an IDX file of pictures with its labels beside it, or an .npz with images and labels"


def _vit_options(parser):
    parser.add_argument("--data", required=True, help=f"{_LABELLED}; the last fifth is kept apart")
    parser.add_argument("--from", dest="from_folder", type=Path, metavar="DIR", help="fine-tune this encoder")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="go through the pictures so many times")
    length.add_argument("--steps", type=int, help="train for so many steps")
    length.add_argument("--minutes", type=float, help="train for so long (default: 9, digits 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, vit.npz")
    parser.add_argument("--resume", action="store_true", help="go on with the model in the folder")
    model = parser.add_argument_group("model and training; the defaults fit the data")
    for name in ("img-size", "patch-size", "embed-dim", "depth", "num-heads", "batch", "shift"):
        model.add_argument(f"--{name}", type=int, help="pixels by which pictures are moved" if name == "shift" else None)
    model.add_argument("--pool", choices=("token", "mean"), help="class token, or mean of the patches")
    model.add_argument("--positions", choices=("learned", "fixed"))
    for name in ("dropout", "lr", "weight-decay", "label-smoothing", "mixup", "layer-decay"):
        model.add_argument(f"--{name}", type=float)
    model.add_argument("--flip", action=argparse.BooleanOptionalAction, help="mirror pictures (default: colour ones)")
    parser.set_defaults(command=_train_vit)


def _length(data, steps, minutes):
    if steps is None and minutes is None:
        minutes = 0.5 if data == "digits" else 2.5
    return {"steps": steps, "minutes": minutes}


def _demo(data, out, steps, minutes, **options):
    from tinymae.demo import demo

    demo(data, out, **_length(data, steps, minutes), **options)
    return 0


def _train_mae(data, out, steps, minutes, mask_ratio, norm_pix_loss, seed, threads, resume, **sizes):
    from tinymae.demo import prepare, train_mae

    task = prepare(data, mask_ratio, norm_pix_loss, {name: size for name, size in sizes.items() if size is not None})
    run = train_mae(task, out, **_length(data, steps, minutes), seed=seed, threads=threads, resume=resume, extra={"data": data})
    print(f"{run.step} steps, loss on unseen pictures {run.evaluations[-1][1]:.4f}: {out / 'mae.npz'}")
    if run.interrupted:
        print("interrupted; the same command with --resume goes on from here")
    return 0


def _train_translate(
    data, valid, reverse, epochs, steps, minutes, seed, threads, out, resume, source_vectors, target_vectors, freeze, **options
):
    from tqdm import tqdm

    from tinymae.data.corpus import load_corpus
    from tinymae.translation import Translator, settings_for, train_translator

    corpus = load_corpus(data, seed, valid)
    corpus = corpus.reversed() if reverse else corpus
    print(f"{len(corpus.train)} sentence pairs to learn from, {len(corpus.held_out)} held out")
    if epochs is None and steps is None and minutes is None:
        minutes = {"phrasebook": 3, "dates": 1, "french": 0.2}.get(data[0])
        epochs = None if minutes else 10
    settings = settings_for(corpus)
    given = {name: value for name, value in options.items() if value is not None}
    config = settings.config | {name: given.pop(name) for name in list(given) if name not in settings._fields}
    vectors = {side: path for side, path in (("source", source_vectors), ("target", target_vectors)) if path}
    run = train_translator(
        corpus, out, settings._replace(config=config, **given), steps, minutes, epochs, seed, threads, resume, vectors, freeze,
        say=tqdm.write,
    )
    sources, references = zip(*corpus.held_out, strict=True)
    translator = Translator.load(out)
    exact = sum(map(translator.exact, translator.translate(sources), references)) / len(references)
    print(f"{run.step} steps, {run.seconds:.0f} s; exact match on {len(references)} held-out pairs: {exact:.2%}")
    if run.interrupted:
        print("interrupted; the same command with --resume goes on from here")
    print(out)
    return 0


def _train_vit(data, from_folder, epochs, steps, minutes, seed, threads, out, resume, **options):
    from tqdm import tqdm

    from tinymae.classification import evaluate, settings_for, train_vit
    from tinymae.data.labelled import load_labelled

    labelled = load_labelled(data)
    if epochs is None and steps is None and minutes is None:
        minutes = 1 if data == "digits" else 9
    settings = None                                             # a resumed run goes on with its own
    given = {name: value for name, value in options.items() if value is not None}
    if given or not resume:
        settings = settings_for(labelled, from_folder is not None)
        config = settings.config | {name: given.pop(name) for name in list(given) if name not in settings._fields}
        settings = settings._replace(config=config, **given)
    run = train_vit(labelled, out, settings, steps, minutes, epochs, from_folder, seed, threads, resume, say=tqdm.write)
    result = evaluate(out, labelled, threads=threads)
    right, count = result["accuracy"], result["pictures"]
    print(f"{run.step} steps, {run.seconds:.0f} s; right on {right:.2%} of {count} pictures kept apart")
    if run.interrupted:
        print("interrupted; the same command with --resume goes on from here")
    print(out / "vit.npz")
    return 0


def _evaluate_vit(model, data, whole, rollout):
    from tinymae.classification import evaluate
    from tinymae.data.labelled import load_labelled

    labelled = load_labelled(data)
    result = evaluate(model, labelled, whole)
    names, confusion = result["names"], result["confusion"]
    print(f"right on {result['accuracy']:.2%} of {result['pictures']} pictures")
    if len(names) <= 20:
        wide = max(5, *(len(name) + 1 for name in names))
        print("\ntrue class down, the model's answer across")
        print(" " * wide + "".join(f"{name:>{wide}}" for name in names))
        for name, row in zip(names, confusion, strict=True):
            print(f"{name:>{wide}}" + "".join(f"{count:{wide}}" for count in row))
    if rollout:
        _draw_rollout(model, labelled, rollout)
    return 0


def _draw_rollout(model, labelled, path):
    from tinymae import plot
    from tinymae.classification import Classifier
    from tinymae.data.images import to_pixels
    from tinymae.data.labelled import fit_pictures
    from tinymae.models.vit import attention_rollout, vit_attention

    classifier = Classifier.load(model)
    config = classifier.config
    pictures = fit_pictures(labelled.split()[1].images[:6], config.img_size, config.in_chans)
    rollout = attention_rollout(vit_attention(to_pixels(pictures), classifier.params, config))
    seen, caption = rollout[:, 0, 1:], None                     # by the class token
    if config.pool == "mean":
        seen = rollout[:, 1:, 1:].mean(axis=1)
        caption = (
            "How to read it: the brighter a patch, the more of it reaches the mean of all patches, from which this model names "
            "the picture, through all layers together. Each picture has its own scale, from 0 (dark) to its brightest patch."
        )
    print(plot.save(plot.rollout_over_pictures(pictures, seen, config.grid, caption), path))


def _probe(model, data, per_class):
    from tinymae.data.labelled import load_labelled
    from tinymae.probe import probe

    report = probe(model, load_labelled(data), per_class)
    print(f"accuracy on {report['test']} pictures kept apart, learned from {report['train']} labels")
    print(f"{'':26}{'encoder features':>20}{'raw pixels':>20}")
    for key, label in (("linear", "logistic regression"), ("knn", "nearest neighbours")):
        cells = [f"{report[view][key]:.2%} +- {report['deviations'][view][key]:.2%}" for view in ("features", "pixels")]
        cells = cells if per_class else [cell.partition(" +-")[0] for cell in cells]
        print(f"{label:26}" + "".join(f"{cell:>20}" for cell in cells))
    return 0


def _inspect(file):
    from tinymae.pretrained import inspect

    found = inspect(file)
    for name, shape, dtype in found.tensors:
        print(f"{name:64} {tuple(shape)!s:20} {dtype}")
    print(f"\n{len(found.tensors)} tensors, {sum(math.prod(shape) for _, shape, _ in found.tensors):,} numbers")
    print(f"{found.what}\nit can: {found.can}")
    if found.licence:
        print(found.licence)
    return 0


def _export(model, to, file):
    from tinymae import pretrained
    from tinymae.probe import load_encoder

    found = load_encoder(model)
    if (found.model == "vit") != (to == "vit"):
        raise ValueError(f"{model}: holds a {found.model} model, which --to {to} cannot hold: expected --to " + (
            "vit" if found.model == "vit" else "mae or vit-mae"))
    write = {"mae": pretrained.export_mae, "vit-mae": pretrained.export_vit_mae, "vit": pretrained.export_vit}[to]
    print(write(file, found.config, found.params))
    return 0


def _translate(text, model, weights, tokens, beam, attention, layer):
    if tokens and not weights:
        raise ValueError("--tokens is for published models: give --weights FOLDER")
    if weights:
        if attention or layer is not None:
            raise ValueError("--attention is for models trained here: give --model DIR")
        return _translate_published(text, weights, tokens, beam)
    return _translate_own(text, model, beam, attention, layer)


def _translate_published(text, weights, tokens, beam):
    from tinymae.marian import MarianTokenizer, load_marian, parse_ids, translate_ids

    config, params = load_marian(weights)
    tokenizer = None if tokens else MarianTokenizer(weights)
    for line in text or (line.rstrip("\n") for line in sys.stdin):
        if tokens:
            print(*translate_ids([parse_ids(line, config)], params, config, beam)[0], flush=True)
            continue
        unknown = tokenizer.unknown(line)
        if unknown:
            print(f"tinymae: unknown to the model: {', '.join(unknown)}", file=sys.stderr)
        print(tokenizer.decode(translate_ids([tokenizer.encode(line)], params, config, beam)[0]), flush=True)
    return 0


def _translate_own(text, model, beam, attention, layer):
    from tinymae.translation import Translator

    if layer is not None and not attention:
        raise ValueError("--layer is for a picture: give --attention FILE.png, too")
    translator = Translator.load(model)
    if attention:
        _draw_attention(translator, text, beam, attention, layer)
    for line in text or (line.rstrip("\n") for line in sys.stdin):
        unknown = translator.languages[0].unknown(line)
        if unknown:
            print(f"tinymae: unknown to the model: {', '.join(unknown)}", file=sys.stderr)
        print(translator.translate([line], beam)[0], flush=True)
    return 0


def _draw_attention(translator, text, beam, path, layer):
    from tinymae import plot

    if len(text) != 1:
        raise ValueError(f"--attention draws one sentence, got {len(text)}")
    sources, words, decoded = translator.decode(text[0], beam)
    weights = decoded.cross[0][:, :, : len(words)]              # (L, H, T, Tk)
    if layer is not None and not 0 <= layer < len(weights):
        raise ValueError(f"--layer {layer}: the decoder has the layers 0 to {len(weights) - 1}")
    where = f"mean over the {len(weights)} layers of the decoder" if layer is None else f"layer {layer} of the decoder"
    caption = (
        f"How to read it: each map is one head ({where}), each row one word of the translation: how it spread its attention "
        "over the source as it was said. The colours run from 0 to 1, the same for all heads."
    )
    weights = weights.mean(axis=0) if layer is None else weights[layer]
    print(plot.save(plot.attention(weights, words, sources, caption), path), file=sys.stderr)


def _average(model, last, out):
    from tinymae.translation import average

    steps = average(model, out, last)
    print(f"the mean of the parameters after {', '.join(map(str, steps))} steps: {out}")
    return 0


def _evaluate_translate(model, data, reverse, beam):
    from tinymae.data.corpus import NAMES, load_corpus, read_pairs
    from tinymae.translation import Translator, evaluate

    translator = Translator.load(model)
    pairs = load_corpus(data, translator.seed).held_out if data[0] in NAMES else read_pairs(data)
    pairs = [(target, source) for source, target in pairs] if reverse else pairs
    for name, value in evaluate(translator, pairs, beam).items():
        print(f"{name:12}{value if isinstance(value, str) else format(value, '.4f')}")
    return 0


def _reconstruct(picture, model, weights, mask_ratio, seed, out):
    from tinymae.demo import reconstruct, reconstruct_published

    out = out or Path("figures", f"{picture.stem}_restored.png")
    if weights:
        print(reconstruct_published(picture, weights, out, mask_ratio, seed))
    else:
        print(reconstruct(picture, model, out, mask_ratio, seed))
    return 0


def _lessons():
    from tinymae.lesson import lessons

    for lesson in lessons():
        print(f"{lesson.number:2}  {lesson.title:50} {lesson.chinese}")
    print("\npython -m tinymae lesson 1 --step      walks through the first one, cell by cell")
    return 0


def _lesson(number, step):
    from tinymae import lesson

    found = lesson.find_lesson(number)
    if step:
        lesson.step(found)
    else:
        lesson.run(found)
    return 0


def _exercise(name):
    from tinymae.exercises import list_exercises, write_exercise

    if name is None:
        for each, kind, lesson, summary in list_exercises():
            print(f"{each:32} {kind:9} lesson {lesson:2}  {summary}")
        print("\npython -m tinymae exercise NAME      writes NAME.py here; then: python -m tinymae check NAME.py")
        return 0
    path = write_exercise(name)
    print(f"{path}\nread it, complete it, then: python -m tinymae check {path}")
    return 0


def _check(file):
    from tinymae.exercises import check_file

    report = check_file(file)
    print(report.text)
    return 0 if report.ok else 1


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
