"""Reference numbers from Hugging Face's MarianMTModel, written to marian.npz beside this file; README.md describes them.

Nothing here imports tinymae. A tiny translation model with random weights is saved the two ways in which such models are
published; the files themselves are frozen, as bytes, with what the model and its tokenizer make of a few sentences.

Two things of `transformers` are changed before the numbers are taken. It rounds its fixed positions to float32: here they are
float64. It keeps no gradient for looking up the row of the padding, though every sentence starts with it: here it does.
"""
import io
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers
from make_golden import normal, randomise
from torch.nn import functional as F

D, HEADS, HIDDEN, ENCODER_LAYERS, DECODER_LAYERS, MAX_LENGTH = 8, 2, 12, 1, 2, 16
ENGLISH = """The old sailor reads a letter. A letter lies on the table. The table is in the garden.
She reads in the garden at night. The night is cold. A cold wind comes from the sea. The sailor comes home.
Her home is near the sea. Who reads the old letter?"""
FRENCH = """Le vieux marin lit une lettre. Une lettre est sur la table. La table est dans le jardin.
Elle lit la nuit au jardin. La nuit est froide. Un vent froid vient de la mer. Le marin rentre.
Sa maison est au bord de la mer. Qui lit la vieille lettre ?"""
TEXTS = ["The old sailor comes home.", "Who reads?", ">>fra<< The wind is cold", "A new letter: 7!", "sea"]
LABELS = ["Le vieux marin rentre.", "Qui lit ?", "Le vent est froid", "Une lettre", "la mer"]


def pieces(text, vocab_size):
    """A SentencePiece model of a text, as bytes."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=file, vocab_size=vocab_size, character_coverage=1.0,
        normalization_rule_name="identity", bos_id=-1, eos_id=0, unk_id=1, minloglevel=2,
    )
    return file.getvalue()


def vocabulary(*models):
    """One vocabulary for both languages: the end first, the padding last."""
    found = ["</s>", "<unk>", ">>fra<<"]
    for model in models:
        loaded = sentencepiece.SentencePieceProcessor(model_proto=model)
        found += [loaded.id_to_piece(i) for i in range(len(loaded))]
    return {piece: i for i, piece in enumerate([*dict.fromkeys(found), "<pad>"])}


def make_model(words):
    config = transformers.MarianConfig(
        vocab_size=words, d_model=D, encoder_layers=ENCODER_LAYERS, decoder_layers=DECODER_LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=HIDDEN, decoder_ffn_dim=HIDDEN,
        activation_function="swish", scale_embedding=True, max_position_embeddings=32, dropout=0.1,
        pad_token_id=words - 1, decoder_start_token_id=words - 1, eos_token_id=0, forced_eos_token_id=None,
    )
    model = randomise(transformers.MarianMTModel(config)).eval()
    model.final_logits_bias.data = normal(1, words, scale=0.3)
    model.final_logits_bias.data[0, [-1, 0, 1]] = torch.tensor([4, 2.75, -3])               # likely: <pad>, </s>; not: <unk>
    for layer in model.model.decoder.layers:
        for p in layer.parameters():
            if p.ndim == 2:
                p.data *= 1.5                                   # so that it says many words
    return model


def files(model, folder):
    """The model as it is published: {name: bytes}. Today's files, float32; and files of 2020, pickled, here float16."""
    model.float().save_pretrained(folder)
    torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, folder / "pytorch_model.bin")
    model.double()
    names = "config.json", "model.safetensors", "pytorch_model.bin"
    return {name: (folder / name).read_bytes() for name in names}


def exact_positions(model):
    """Float64 positions, sines then cosines, in place of rounded ones; returns those that were there."""
    angles = torch.tensor([[pos / 10000 ** (2 * j / D) for j in range(D // 2)] for pos in range(32)])
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    for side in (model.model.encoder, model.model.decoder):
        was = side.embed_positions.weight.clone()
        assert torch.allclose(was, table, rtol=0, atol=6e-8)
        side.embed_positions.weight.data = table.clone()
    return was


def tree(model, of):
    """Every parameter by its path in ours, weights (in, out); `of` takes a tensor's value or its gradient."""
    def linear(path, module):
        return {f"{path}.w": of(module.weight).T, f"{path}.b": of(module.bias)}

    def norm(path, module):
        return {f"{path}.gamma": of(module.weight), f"{path}.beta": of(module.bias)}

    def attention(path, module):
        projections = {"q": module.q_proj, "k": module.k_proj, "v": module.v_proj, "out": module.out_proj}
        return {key: leaf for name, each in projections.items() for key, leaf in linear(f"{path}.{name}", each).items()}

    found = {"embed": of(model.model.shared.weight), "out.b": of(model.final_logits_bias)[0]}
    for i, layer in enumerate(model.model.encoder.layers):
        at = f"encoder.blocks.{i}"
        found |= norm(f"{at}.ln1", layer.self_attn_layer_norm) | attention(f"{at}.attn", layer.self_attn)
        found |= norm(f"{at}.ln2", layer.final_layer_norm)
        found |= linear(f"{at}.ffn.fc1", layer.fc1) | linear(f"{at}.ffn.fc2", layer.fc2)
    for i, layer in enumerate(model.model.decoder.layers):
        at = f"decoder.blocks.{i}"
        found |= norm(f"{at}.ln1", layer.self_attn_layer_norm) | attention(f"{at}.self_attn", layer.self_attn)
        found |= norm(f"{at}.ln2", layer.encoder_attn_layer_norm) | attention(f"{at}.cross_attn", layer.encoder_attn)
        found |= norm(f"{at}.ln3", layer.final_layer_norm)
        found |= linear(f"{at}.ffn.fc1", layer.fc1) | linear(f"{at}.ffn.fc2", layer.fc2)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(leaf.numel() for leaf in found.values()) == trained + model.final_logits_bias.numel()
    return found


def make_marian(folder):
    torch.manual_seed(15)
    spm = {"source.spm": pieces(ENGLISH, 40), "target.spm": pieces(FRENCH, 40)}
    vocab = vocabulary(*spm.values())
    pad = len(vocab) - 1
    frozen = spm | {"vocab.json": json.dumps(vocab).encode()}
    for name, content in frozen.items():
        (folder / name).write_bytes(content)
    tokenizer = transformers.MarianTokenizer(*(str(folder / name) for name in (*spm, "vocab.json")))
    model = make_model(len(vocab))
    frozen |= files(model, folder)
    out = {f"file.{name}": np.frombuffer(content, np.uint8) for name, content in frozen.items()}

    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    src, seen = batch["input_ids"], batch["attention_mask"]
    targets = tokenizer(text_target=LABELS, padding=True, return_tensors="pt")["input_ids"]
    out |= {"texts": np.array(TEXTS), "labels": np.array(LABELS), "src": src, "targets": targets}
    assert (src == 1).any() and (src == 2).any()                # an unknown letter, a language code
    out["positions"] = exact_positions(model)
    for table in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
        table.padding_idx = None
    model.final_logits_bias.requires_grad_(True)
    output = model(input_ids=src, attention_mask=seen, labels=targets.masked_fill(targets == pad, -100))
    out["logits"], out["loss"] = output.logits[targets != pad], output.loss
    assert torch.isclose(output.loss, F.cross_entropy(out["logits"], targets[targets != pad]), rtol=1e-14)
    output.loss.backward()
    out |= {f"grad.{path}": leaf for path, leaf in tree(model, lambda p: p.grad).items()}

    torch.set_default_dtype(torch.float32)                      # generate() wants it; the model stays float64
    said = {}
    for name, never in (("free", None), ("greedy", [[pad]])):
        said[name] = model.generate(
            input_ids=src, attention_mask=seen, num_beams=1, do_sample=False, max_length=MAX_LENGTH, bad_words_ids=never,
            forced_eos_token_id=None,
        )[:, 1:]  # without the <pad> that starts each
    assert said["free"].tolist() != said["greedy"].tolist()    # it would have said <pad>
    ends = [row.tolist().index(0) if 0 in row else None for row in said["greedy"]]
    assert None in ends and len(set(ends)) > 2, ends            # sentences of several lengths, and one that is cut off
    assert not (said["greedy"] == 1).any()                      # its tokenizer would not show <unk>
    out["greedy"] = said["greedy"]
    out["greedy.texts"] = np.array(tokenizer.batch_decode(said["greedy"], skip_special_tokens=True))
    print(out["greedy.texts"])

    arrays = {key: v.detach().numpy() if isinstance(v, torch.Tensor) else v for key, v in out.items()}
    path = Path(__file__).with_name("marian.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name:10} {len(arrays):4} arrays {path.stat().st_size / 1000:6.1f} kB")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    print(f"PyTorch {torch.__version__}, transformers {transformers.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        make_marian(Path(folder))
