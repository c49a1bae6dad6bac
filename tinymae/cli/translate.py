"""Commands of the translator: train translate, translate, average, evaluate translate."""
import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tinymae.cli.options import PAIR_DATA, RESUME, add_folder, add_length, add_ranks, add_run, with_options
from tinymae.messages import marked, padded, translated
from tinymae.messages import message as _

OWN = marked(
    "folder that train translate wrote to, or a file of export --to tinymae (default: the model that comes with tinymae)"
)
MEASURES = {                                                    # of `evaluate_translator`
    "bleu": marked("bleu"), "signature": marked("signature"), "exact": marked("exact"), "perplexity": marked("perplexity"),
    "accuracy": marked("accuracy"),
}


def add_train(models: argparse._SubParsersAction) -> None:
    """`train translate`."""
    parser = models.add_parser("translate", help=_("an encoder-decoder Transformer"))
    parser.add_argument("--data", nargs="+", default=["phrasebook"], metavar="DATA", help=translated(PAIR_DATA))
    parser.add_argument("--valid", nargs="+", metavar="FILE", help=_("validation pairs (default: one in fifty of the data)"))
    parser.add_argument("--reverse", action="store_true", help=_("translate from the second language into the first"))
    epochs = _("go through the training pairs this many times (default for files: 10)")
    add_length(parser, minutes=_("default: phrasebook 3, dates 1, french 0.2"), epochs=epochs)
    add_run(parser)
    add_folder(parser, out=_("folder for the model, transformer.npz"))
    words = parser.add_argument_group(_("words"))
    words.add_argument("--min-count", type=int, help=_("rarer tokens become <unk> (default: files of words 2, all else 1)"))
    words.add_argument("--bpe", type=int, dest="pieces", metavar="N", help=_("a vocabulary of N subwords (BPE) in place of "
                                                                             "words"))
    words.add_argument("--bpe-dropout", type=float, metavar="P", help=_("cut training sentences in other ways in each epoch"))
    words.add_argument("--source-vectors", type=Path, metavar="FILE", help=_("word vectors (word2vec, GloVe) to start from"))
    words.add_argument("--target-vectors", type=Path, metavar="FILE", help=_("the same for the other language"))
    words.add_argument("--freeze", action="store_true", help=_("do not train on the words that have such vectors"))
    model = parser.add_argument_group(_("model and training; the defaults fit the data"))
    for name in ("d-model", "encoder-layers", "decoder-layers", "heads", "d-ff", "tokens"):
        model.add_argument(f"--{name}", type=int, help=_("tokens in a batch") if name == "tokens" else None)
    model.add_argument("--dropout", type=float)
    model.add_argument("--post-norm", dest="norm_first", action="store_false", default=None, help=_("as in the paper"))
    model.add_argument("--label-smoothing", type=float)
    model.add_argument("--lr", type=float, help=_("the highest learning rate"))
    model.add_argument("--schedule", choices=("cosine", "noam"), help=_("of the learning rate (default: cosine)"))
    model.add_argument("--warmup", type=int, help=_("steps of warm-up for noam (default: 4000, as in the paper)"))
    add_ranks(parser, _train_translate)


def _train_translate(
    data, valid, reverse, epochs, steps, minutes, seed, threads, out, resume, overwrite, save_every, source_vectors,
    target_vectors, freeze, ranks, **options
):
    from tqdm import tqdm

    from tinymae.tasks.train_translator import train_translator, translator_settings
    from tinymae.tasks.translate import Translator
    from tinymae.text.corpus import CORPORA, FILE_EPOCHS, load_corpus

    corpus = load_corpus(data, seed, valid)
    corpus = corpus.reversed() if reverse else corpus
    print(_("{train} sentence pairs to train on, {validation} in the validation set",
            train=len(corpus.train), validation=len(corpus.held_out)))
    if corpus.note:
        print(corpus.note)
    if epochs is None and steps is None and minutes is None:
        minutes = CORPORA[data[0]].minutes if data[0] in CORPORA else None
        epochs = None if minutes else FILE_EPOCHS
    vectors = {side: path for side, path in (("source", source_vectors), ("target", target_vectors)) if path}
    run = train_translator(
        corpus, out, with_options(translator_settings(corpus), options), steps=steps, minutes=minutes, epochs=epochs, seed=seed,
        threads=threads, resume=resume, overwrite=overwrite, save_every=save_every, vectors=vectors, freeze=freeze,
        say=tqdm.write, ranks=ranks,
    )
    if run.interrupted:
        print(translated(RESUME), flush=True)
    if ranks.rank:
        return 0
    sources, references = zip(*corpus.held_out, strict=True)
    translator = Translator.load(out)
    exact = sum(map(translator.exact, translator.translate(sources), references)) / len(references)
    print(_("{steps} steps, {seconds:.0f} s; exact match on {count} validation pairs: {exact:.2%}",
            steps=run.step, seconds=run.seconds, count=len(references), exact=exact))
    print(out)
    return 0


def add_translate(commands: argparse._SubParsersAction) -> None:
    """`translate`."""
    use = commands.add_parser("translate", help=_("translate: with the small model that comes with tinymae, or another"))
    use.add_argument("text", nargs="*", metavar="TEXT", help=_("sentences (default: lines from standard input)"))
    which = use.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, help=translated(OWN))
    which.add_argument("--weights", type=Path, metavar="FOLDER", help=_("a Marian translator in Hugging Face's format"))
    use.add_argument("--tokens", action="store_true", help=_("with --weights: TEXT and answer are ids; needs no tokenizer"))
    use.add_argument("--beam", type=int, default=1, help=_("hypotheses to keep; 1 is greedy (default)"))
    use.add_argument("--attention", type=Path, metavar="FILE.png", help=_("draw what each token attended to (one TEXT)"))
    use.add_argument("--layer", type=int, help=_("of the decoder, from 0, for --attention (default: the mean over all layers)"))
    use.set_defaults(command=_translate)


def _translate(text, model, weights, tokens, beam, attention, layer):
    if tokens and not weights:
        raise ValueError(_("--tokens is for published models: give --weights FOLDER"))
    if weights:
        if attention or layer is not None:
            raise ValueError(_("--attention is for models trained here: give --model DIR"))
        return _translate_published(text, weights, tokens, beam)
    return _translate_own(text, model, beam, attention, layer)


def _translate_published(text, weights, tokens, beam):
    from tinymae.weights.marian import MarianTokenizer, load_marian, parse_ids, translate_ids

    config, params = load_marian(weights)
    tokenizer = None if tokens else MarianTokenizer(weights)
    for line in text or (line.rstrip("\r\n") for line in sys.stdin):
        if tokens:
            print(*translate_ids([parse_ids(line, config)], params, config, beam=beam)[0], flush=True)
            continue
        if not line.strip():
            print(flush=True)                                   # an empty line for an empty line
            continue
        unknown = tokenizer.unknown(line)
        if unknown:
            print("tinymae: " + _("unknown to the model: {tokens}", tokens=", ".join(unknown)), file=sys.stderr)
        print(tokenizer.decode(translate_ids([tokenizer.encode(line)], params, config, beam=beam)[0]), flush=True)
    return 0


def _translate_own(text, model, beam, attention, layer):
    from tinymae.tasks.translate import Translator

    if layer is not None and not attention:
        raise ValueError(_("--layer is for a picture: give --attention FILE.png, too"))
    translator = Translator.load(model)
    if model is None:
        _describe_shipped(translator)
    if attention:
        _draw_attention(translator, text, beam, attention, layer)
    for line in text or (line.rstrip("\r\n") for line in sys.stdin):
        unknown = translator.languages[0].unknown(line)
        if unknown:
            print("tinymae: " + _("unknown to the model: {tokens}", tokens=", ".join(unknown)), file=sys.stderr)
        print(translator.translate([line], beam)[0], flush=True)
    return 0


def _describe_shipped(translator):
    """Two lines on stderr: what the translator that comes with tinymae knows."""
    from tinymae.text.vocabulary import SPECIALS

    characters, words = (language.vocabulary.words[len(SPECIALS):] for language in translator.languages)
    some, others = (" ".join(known[10 :: len(known) // 8]) for known in (characters, words))
    for line in (
        _("the small translator that comes with tinymae, Chinese to English, for the sentences of the phrasebook"),
        _("it knows {characters} Chinese characters, such as {some}; {words} English words, such as {others}",
          characters=len(characters), some=some, words=len(words), others=others),
    ):
        print(f"tinymae: {line}", file=sys.stderr)


def _draw_attention(translator, text, beam, path, layer):
    from tinymae import plot

    if len(text) != 1:
        raise ValueError(_("--attention draws one sentence, got {count}", count=len(text)))
    sources, words, decoded = translator.decode(text[0], beam)
    weights = decoded.cross[0][:, :, : len(words)]              # (L, H, T, Tk)
    if layer is not None and not 0 <= layer < len(weights):
        raise ValueError(_("--layer {layer}: the decoder has the layers 0 to {last}", layer=layer, last=len(weights) - 1))
    where = _("layer {layer} of the decoder", layer=layer)
    if layer is None:
        where = _("mean over the {layers} layers of the decoder", layers=len(weights))
    caption = _("How to read it: each map is one head ({where}), each row one token of the translation: how it spread its "
                "attention over the source as it was generated. The colours run from 0 to 1, the same for all heads.",
                where=where)
    weights = weights.mean(axis=0) if layer is None else weights[layer]
    print(plot.save(plot.attention(weights, words, sources, caption=caption), path), file=sys.stderr)


def add_average(commands: argparse._SubParsersAction) -> None:
    """`average`."""
    mean = commands.add_parser("average", help=_("the mean of a translator's last evaluations, as a model of its own"))
    mean.add_argument("--model", type=Path, required=True, help=_("folder that train translate wrote to"))
    mean.add_argument("--last", type=int, default=5, help=_("how many evaluations (default, and at most: 5)"))
    mean.add_argument("--out", type=Path, required=True, help=_("folder for the averaged model"))
    mean.add_argument("--overwrite", action="store_true", help=_("replace the model in that folder"))
    mean.set_defaults(command=_average)


def _average(model, last, out, overwrite):
    from tinymae.tasks.train_translator import average

    steps = average(model, out, last, overwrite=overwrite)
    print(_("the mean of the parameters after {steps} steps: {out}", steps=", ".join(map(str, steps)), out=out))
    return 0


def add_evaluate(models: argparse._SubParsersAction) -> None:
    """`evaluate translate`."""
    judge = models.add_parser("translate", help=_("BLEU, exact match and perplexity of translations"))
    judge.add_argument("--model", type=Path, help=translated(OWN))
    judge.add_argument("--average", type=int, metavar="N", help=_("evaluate the mean of the parameters of the last N "
                                                                  "evaluations"))
    judge.add_argument("--data", nargs="+", metavar="DATA",
                       help=_("{data}; by name: its validation set (default, without --model: phrasebook)",
                              data=translated(PAIR_DATA)))
    judge.add_argument("--reverse", action="store_true", help=_("from the second language into the first"))
    judge.add_argument("--beam", type=int, default=1, help=_("hypotheses to keep; 1 is greedy (default)"))
    judge.set_defaults(command=_evaluate_translate)


def _evaluate_translate(model, average, data, reverse, beam):
    from tinymae.tasks.translate import Translator, evaluate_translator, last_mean
    from tinymae.text.corpus import CORPORA, load_corpus, read_pairs

    if model is None and average is not None:
        raise ValueError(_("--average is for a run that kept its last evaluations: give --model DIR"))
    if model is not None and data is None:
        raise ValueError(_("expected --data with --model: {data}", data=translated(PAIR_DATA)))
    data = data or ["phrasebook"]
    translator = Translator.load(model)
    if average is not None:
        translator = replace(translator, params=last_mean(model, average)[0])
    pairs = load_corpus(data, translator.seed).held_out if data[0] in CORPORA else read_pairs(data)
    pairs = [(target, source) for source, target in pairs] if reverse else pairs
    for name, value in evaluate_translator(translator, pairs, beam).items():
        print(padded(translated(MEASURES[name]), 12) + (value if isinstance(value, str) else format(value, ".4f")))
    return 0
