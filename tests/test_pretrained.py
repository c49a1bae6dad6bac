"""Other people's files: what is loaded computes their numbers, what is exported comes back, and a wrong file is named."""
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinymae import tree
from tinymae.models.mae import MAEConfig, StoredPositions, mae_backward, mae_forward, mae_init, mae_reconstruct
from tinymae.models.patch_encoder import encoder_features
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits, vit_positions
from tinymae.weights.export import export_mae, export_vit, export_vit_mae, named_tensors
from tinymae.weights.inspect import KINDS, LICENCE, inspect, recognise
from tinymae.weights.layout import OFFICIAL, known_heads, mae_rows
from tinymae.weights.pth import write_pth
from tinymae.weights.published import load_mae, load_published_encoder, load_vit
from tinymae.weights.read import read_weights
from tinymae.weights.safetensors import write_safetensors

with np.load(Path(__file__).parent / "golden" / "pretrained.npz") as file:
    GOLDEN = dict(file)

HEADS = {"heads": 2, "decoder_heads": 3, "norm_pix_loss": False}        # of the tiny official files
SIZES = {"img_size": 12, "patch_size": 4, "in_chans": 3, "embed_dim": 8, "depth": 2, "num_heads": 2}
DECODER = {"decoder_embed_dim": 12, "decoder_depth": 1, "decoder_num_heads": 3}
DTYPES = {"float64": (np.float64, 1e-12), "float32": (np.float32, 1e-5)}


@pytest.fixture(params=DTYPES)
def precision(request):
    return DTYPES[request.param]


@pytest.fixture
def put(tmp_path):
    """put(name): writes a file, or the files of a folder, out of the golden file, and says where."""
    def write(name):
        for key, data in GOLDEN.items():
            if key == f"file.{name}" or key.startswith(f"file.{name}/"):
                path = tmp_path / key.removeprefix("file.")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data.tobytes())
        return tmp_path / name
    return write


def close(name, ours, reference, tolerance):
    scale = 1.0 if name.endswith("qkv.b") else np.abs(reference).max()      # a key's bias: gradient 0 but for rounding
    assert ours.shape == reference.shape, name
    error = np.abs(ours - reference).max() / scale
    assert error < tolerance, f"{name}: relative error {error:.1e}"


def close_gradients(case, grads, tolerance):
    expected = {key.removeprefix(f"{case}.grad."): value for key, value in GOLDEN.items() if key.startswith(f"{case}.grad.")}
    ours = dict(tree.leaves(grads))
    assert ours.keys() == expected.keys()
    for path, leaf in ours.items():
        close(path, leaf, expected[path], tolerance)


def close_mae(case, config, params, dtype, tolerance, gradients=True):
    loss, cache = mae_forward(GOLDEN["images"].astype(dtype), params, config, GOLDEN["noise"])
    assert cache["pred"].dtype == dtype
    close("loss", loss, GOLDEN[f"{case}.loss"], tolerance)
    close("pred", cache["pred"], GOLDEN[f"{case}.pred"], tolerance)
    np.testing.assert_array_equal(cache["mask"], GOLDEN[f"{case}.mask"])
    if gradients:
        close_gradients(case, mae_backward(1.0, cache), tolerance)


def equal(ours, theirs):
    for (path, a), (other, b) in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        assert path == other and a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path)


# ---- what is loaded computes their numbers ---------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["visualize", "legacy", "archive"])
def test_official_mae(name, put, precision):
    """The zip of today, the format before it, and the zip of 2021."""
    dtype, tolerance = precision
    config, params = load_mae(put(f"{name}.pth"), **HEADS, dtype=dtype)
    assert config == MAEConfig(**SIZES, **DECODER) or isinstance(config, StoredPositions)
    close_mae("visualize", config, params, dtype, tolerance)


def test_float32_positions_are_our_table(put, capsys):
    """In float32 the stored table is ours to the last bit, so an official file needs no StoredPositions."""
    config, _ = load_mae(put("visualize.pth"), **HEADS)
    assert type(config) is MAEConfig and config == MAEConfig(**SIZES, **DECODER)
    assert "sines" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_half_precision(name, put, precision):
    dtype, tolerance = precision
    config, params = load_mae(put(f"{name}.pth"), **HEADS, dtype=dtype)
    assert all(leaf.dtype == dtype for _, leaf in tree.leaves(params))
    close_mae(name, config, params, dtype, tolerance, gradients=False)


def test_training_checkpoint(put, precision):
    """The optimiser is left alone, and args say how the model was trained."""
    dtype, tolerance = precision
    config, params = load_mae(put("training.pth"), heads=2, decoder_heads=3, dtype=dtype)
    assert config.norm_pix_loss is True and config.mask_ratio == 0.5
    close_mae("training", config, params, dtype, tolerance, gradients=False)


def test_encoder_only(put, precision):
    dtype, tolerance = precision
    config, params = load_published_encoder(put("encoder.pth"), heads=2, dtype=dtype)
    assert params.keys() - {"positions"} == {"encoder"} and config.num_classes == 1
    images, positions = GOLDEN["images"].astype(dtype), vit_positions(params, config, dtype)
    latent = encoder_features(
        images, params["encoder"], positions, heads=config.num_heads, patch_size=config.patch_size, eps=config.eps
    )
    close("latent", latent, GOLDEN["encoder.latent"], tolerance)


def test_stored_positions_of_another_size():
    tables = (np.zeros((9, 8)), np.zeros((9, 8)))
    with pytest.raises(ValueError, match=r"expected tables of shapes \[\(9, 8\), \(9, 4\)\], got \[\(9, 8\), \(9, 8\)\]"):
        StoredPositions(12, 4, embed_dim=8, num_heads=2, decoder_embed_dim=4, decoder_num_heads=1, tables=tables)


@pytest.mark.parametrize("case, positions, eps", [("vit_mae", "table", 1e-5), ("vit_mae_other_positions", "others", 1e-12)])
def test_hugging_face_mae(case, positions, eps, put, precision, capsys):
    dtype, tolerance = precision
    config, params = load_mae(put(case), dtype=dtype)
    expected = MAEConfig(**SIZES, **DECODER, mlp_ratio=2.5, mask_ratio=0.5, norm_pix_loss=True, eps=eps)
    assert {name: getattr(config, name) for name in vars(expected)} == vars(expected)
    close_mae(case, config, params, dtype, tolerance, gradients=positions == "table")
    assert ("not the sines and cosines of He et al." in capsys.readouterr().err) == (positions == "others")


def test_hugging_face_names_of_other_years(put):
    """decoder_layers and decoder_encoder.layer are the same tensors; so are query and q_proj."""
    folder = put("vit_mae")
    expected = load_mae(folder)
    tensors = read_weights(folder / "model.safetensors").tensors
    for changes in (
        {"decoder.decoder_encoder.layer.": "decoder.decoder_layers."},
        {"vit.encoder.layer.": "vit.layers.", "attention.attention.query": "attention.q_proj", "output.dense": "mlp.fc2",
         "attention.attention.key": "attention.k_proj", "attention.attention.value": "attention.v_proj",
         "attention.mlp.fc2": "attention.o_proj", "intermediate.dense": "mlp.fc1"},
    ):
        renamed = {}
        for name, tensor in tensors.items():
            for old, new in changes.items():
                name = name.replace(old, new)
            renamed[name] = tensor
        assert renamed.keys() != tensors.keys()
        write_safetensors(folder / "model.safetensors", renamed)
        config, params = load_mae(folder)
        assert config == expected[0]
        equal(params, expected[1])


@pytest.mark.parametrize("case", ["vit", "finetuned"])
def test_classifier(case, put, precision):
    dtype, tolerance = precision
    if case == "vit":
        config, params = load_vit(put("vit"), dtype=dtype)
        assert config == ViTConfig(**SIZES, num_classes=5, mlp_ratio=2.5, eps=1e-5)
    else:
        config, params = load_vit(put("finetuned.pth"), heads=2, dtype=dtype)
        assert config == ViTConfig(**SIZES, num_classes=5, pool="mean")
    images = GOLDEN["images"].astype(dtype)
    close("logits", vit_logits(images, params, config), GOLDEN[f"{case}.logits"], tolerance)
    loss, cache = vit_forward(images, GOLDEN["labels"], params, config)
    close("loss", loss, GOLDEN[f"{case}.loss"], tolerance)
    close_gradients(case, vit_backward(1.0, cache), tolerance)


@pytest.mark.parametrize("name", ["visualize.pth", "encoder.pth", "finetuned.pth", "vit_mae", "vit"])
def test_encoder_of_any_file(name, put):
    """load_published_encoder takes what the whole loaders take, without the head or the decoder."""
    path = put(name)
    heads = {"heads": 2} if name.endswith(".pth") else {}
    config, params = load_published_encoder(path, **heads)
    assert "head" not in params and config.embed_dim == 8
    if name in ("finetuned.pth", "vit"):
        whole = load_vit(path, **heads)
        assert config == whole[0]
        equal(params, {key: branch for key, branch in whole[1].items() if key != "head"})
    else:
        whole = put("visualize.pth") if name == "encoder.pth" else path
        equal(params["encoder"], load_mae(whole, **(HEADS if heads else {}))[1]["encoder"])
        assert config.position_encoding == "fixed"


# ---- memory ----------------------------------------------------------------------------------------------------------

def test_linear_weights_are_windows_on_the_file(put):
    """Opening a large model must not cost its size once more: only the patch embedding is laid out anew."""
    _, params = load_mae(put("visualize.pth"), **HEADS)

    def owner(array):
        return array if array.base is None else owner(array.base) if isinstance(array.base, np.ndarray) else array.base

    copies = {path for path, leaf in tree.leaves(params) if isinstance(owner(leaf), np.ndarray)}
    assert copies == {"encoder.patch_embed.w"}


def test_training_on_goes_into_memory_not_into_the_file(put):
    path = put("visualize.pth")
    before = path.read_bytes()
    _, params = load_mae(path, **HEADS)
    for _, leaf in tree.leaves(params):
        leaf += 1
    assert path.read_bytes() == before


# ---- what is exported comes back -------------------------------------------------------------------------------------

def random_params(init, config, dtype=np.float32):
    rng = np.random.default_rng(3)
    return tree.map(lambda leaf: (leaf + rng.normal(size=leaf.shape)).astype(dtype), init(config, None))


MAE = MAEConfig(**SIZES, **DECODER, mlp_ratio=2.5, mask_ratio=0.4, norm_pix_loss=True, eps=3e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("export, name", [(export_mae, "model.pth"), (export_vit_mae, "model")])
def test_mae_round_trip(export, name, dtype, tmp_path, capsys):
    params = random_params(mae_init, MAE, dtype)
    assert export(tmp_path / name, MAE, params) == tmp_path / name
    config, back = load_mae(tmp_path / name, dtype=dtype)
    assert config == MAE and type(config) is MAEConfig
    equal(back, params)
    assert capsys.readouterr().err == ""                        # our own weights: no licence of others


@pytest.mark.parametrize("export, name", [(export_mae, "model.pth"), (export_vit_mae, "model")])
def test_stored_positions_round_trip(export, name, put, tmp_path):
    config, params = load_mae(put("vit_mae_other_positions"))
    export(tmp_path / name, config, params)
    again, back = load_mae(tmp_path / name)
    equal(back, params)
    assert again == config
    equal(list(again.position_tables()), list(config.position_tables()))


@pytest.mark.parametrize("name", ["model.pth", "model"])
@pytest.mark.parametrize("positions", ["learned", "fixed"])
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_vit_round_trip(name, positions, pool, tmp_path):
    config = ViTConfig(**SIZES, num_classes=5, mlp_ratio=2.5, dropout=0.1, eps=3e-6, pool=pool, position_encoding=positions)
    params = random_params(vit_init, config)
    if pool == "mean" and name == "model":
        with pytest.raises(ValueError, match=r"pools by the class token, this model by the mean: write a \.pth"):
            export_vit(tmp_path / name, config, params)
        assert list(tmp_path.iterdir()) == []
        return
    export_vit(tmp_path / name, config, params)
    again, back = load_vit(tmp_path / name)
    assert again == config
    equal(back, params)


def test_widths_that_no_format_has(tmp_path):
    for heads, head_dim in ((1, 8), (2, 8)):
        config = ViTConfig(**{**SIZES, "num_heads": heads}, num_classes=5, head_dim=head_dim)
        with pytest.raises(ValueError, match=r"neither format has \d heads of dimension 8 in a model of dimension 8"):
            export_vit(tmp_path / "model.pth", config, random_params(vit_init, config))
    config = ViTConfig(**SIZES, num_classes=5, head_dim=4)      # D / H, said aloud
    export_vit(tmp_path / "model.pth", config, random_params(vit_init, config))
    assert load_vit(tmp_path / "model.pth")[0] == replace(config, head_dim=None)


@pytest.mark.parametrize("export", [export_mae, export_vit_mae, export_vit])
def test_params_of_another_config(export, tmp_path):
    init, config = (vit_init, ViTConfig(**SIZES, num_classes=5)) if export is export_vit else (mae_init, MAE)
    params = random_params(init, config)
    path = tmp_path / ("out" if export is export_vit_mae else "out.pth")
    for wrong, message in (
        (replace(config, depth=1), r"'encoder\.blocks\.1\.[\w.]*' is left over"),
        (replace(config, depth=3), r"expected 'encoder\.blocks\.2\.ln1\.gamma' of shape \(8,\), got none"),
        (replace(config, embed_dim=16), r"expected 'encoder\.patch_embed\.w' of shape \(48, 16\), got \(48, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            export(path, wrong, params)
    assert list(tmp_path.iterdir()) == []


def test_learned_positions_with_a_config_that_has_fixed_ones(tmp_path):
    """They would be left out without a word."""
    config = ViTConfig(**SIZES, num_classes=5)
    params = random_params(vit_init, config)
    with pytest.raises(ValueError, match="params do not fit the config: 'positions' is left over"):
        export_vit(tmp_path / "model.pth", replace(config, position_encoding="fixed"), params)
    with pytest.raises(ValueError, match="expected positions for a grid of"):
        export_vit(tmp_path / "model.pth", config, {key: leaf for key, leaf in params.items() if key != "positions"})


def test_paths_of_exports(tmp_path):
    params = random_params(mae_init, MAE)
    with pytest.raises(ValueError, match=r"expected a path ending in \.pth"):
        export_mae(tmp_path / "model", MAE, params)
    with pytest.raises(ValueError, match="expected a folder for Hugging Face's two files"):
        export_vit_mae(tmp_path / "model.pth", MAE, params)
    assert list(tmp_path.iterdir()) == []


# ---- what a file is --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, kind", [
    ("visualize.pth", "mae"), ("legacy.pth", "mae"), ("training.pth", "mae"), ("encoder.pth", "mae-encoder"),
    ("finetuned.pth", "mae-vit"), ("vit_mae", "vit-mae"), ("vit", "vit"),
])
def test_inspect(name, kind, put):
    found = inspect(put(name))
    assert found.kind == kind and (found.what, found.can) == KINDS[kind]
    assert found.licence == (LICENCE if kind == "mae" else "")  # the names of an encoder or a classifier are those of timm
    listed = {tensor: (shape, dtype) for tensor, shape, dtype in found.tensors}
    embedding = "patch_embed.proj.weight" if name.endswith(".pth") else "vit.embeddings.patch_embeddings.projection.weight"
    assert listed[embedding] == ((8, 3, 4, 4), "float32")


def test_inspect_unknown(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"layer.weight": np.ones((2, 3), np.float16)})
    found = inspect(tmp_path / "x.safetensors")
    assert found.kind == "" and found.what == "no model that is known here"
    assert found.tensors == [("layer.weight", (2, 3), "float16")]
    with pytest.raises(ValueError, match=r"no model that is known here, with tensors such as 'layer\.weight'"):
        load_mae(tmp_path / "x.safetensors")


def test_marian_is_recognised(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", {"model.shared.weight": np.ones((3, 2), np.float32)})
    assert recognise(["model.shared.weight", "final_logits_bias"]) == inspect(tmp_path).kind == "marian"
    for load in (load_mae, load_vit, load_published_encoder):
        with pytest.raises(ValueError, match="python -m tinymae translate"):
            load(tmp_path)


def test_licence_is_said(put, capsys):
    load_mae(put("visualize.pth"), **HEADS)
    assert "CC-BY-NC" in capsys.readouterr().err
    load_mae(put("vit_mae"))
    assert capsys.readouterr().err == ""


# ---- a wrong file is named -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, load, message", [
    ("encoder.pth", load_mae, r"to reconstruct, take the mae_visualize_\* file, with its decoder"),
    ("finetuned.pth", load_mae, "got a classifier.*load_vit"),
    ("vit", load_mae, "got a classifier.*load_vit"),
    ("visualize.pth", load_vit, "expected a classifier, got a masked autoencoder.*load_published_encoder"),
    ("encoder.pth", load_vit, "expected a classifier, got an encoder, names of timm.*load_published_encoder"),
    ("vit_mae", load_vit, "expected a classifier, got a masked autoencoder.*load_published_encoder"),
])
def test_another_model(name, load, message, put):
    with pytest.raises(ValueError, match=message):
        load(put(name))


def test_heads_are_not_in_an_official_file(put):
    path = put("visualize.pth")
    with pytest.raises(ValueError, match=r"heads is not in the file: give heads \(--heads\)\. .* dimension 8 and 2 layers"):
        load_mae(path)
    with pytest.raises(ValueError, match=r"of dimension 12 and 1 layers, are not in it: give decoder_heads \(--dec"):
        load_mae(path, heads=2)
    with pytest.raises(ValueError, match=r"predicts normalised pixels: give norm_pix_loss \(--norm-pix-loss, or --no-norm"):
        load_mae(path, heads=2, decoder_heads=3)
    for answer in (False, True):
        assert load_mae(path, heads=2, decoder_heads=3, norm_pix_loss=answer)[0].norm_pix_loss is answer
    with pytest.raises(ValueError, match="multiple of 4 and of its 3 heads, got 8"):
        load_mae(path, heads=3, decoder_heads=3, norm_pix_loss=False)
    for heads in ({"heads": 0, "decoder_heads": 3}, {"heads": 2, "decoder_heads": 0}):
        with pytest.raises(ValueError, match="num_heads to be a whole number of at least 1, got 0"):
            load_mae(path, **heads, norm_pix_loss=False)


@pytest.mark.parametrize("width, depth, config, heads", [
    (768, 12, {}, 12), (1024, 24, {}, 16), (1280, 32, {}, 16), (768, 11, {}, None), (384, 12, {}, None), (192, 12, {}, None),
    (384, 12, {"architecture": "vit_small_patch16_224"}, 6), (192, 12, {"architecture": "deit_tiny_patch16_224"}, 3),
    (384, 12, {"architecture": "xcit_small_12_p16"}, None), (384, 12, {"architecture": 7}, None),
    (768, 8, {"architecture": "vit_small_patch16_224"}, None), (48, 2, {"architecture": "vit_tiny_patch16_224"}, None),
    (192, 12, {"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 12}}, None),
])
def test_heads_of_published_sizes(width, depth, config, heads):
    """By dimension and layers together, or by timm's name: a ViT-S has 6 heads in one paper and 12 in another."""
    assert known_heads(width, depth, config) == heads


@pytest.mark.parametrize("name, asks", [
    ("visualize.pth", ["--heads", "--decoder-heads", "--norm-pix-loss or --no-norm-pix-loss"]),
    ("training.pth", ["--heads", "--decoder-heads"]), ("encoder.pth", ["--heads"]), ("vit_mae", []), ("vit", []),
])
def test_inspect_says_what_loading_asks_for(name, asks, put):
    """The same options that the loader then asks for, one by one."""
    assert inspect(put(name)).asks == asks


def test_plain_pixels_by_the_name_of_a_file(put, tmp_path):
    """Meta's mae_visualize_ files predict plain pixels; by any other name, the file is asked about."""
    path = put("visualize.pth").rename(tmp_path / "mae_visualize_vit_tiny.pth")
    assert load_mae(path, heads=2, decoder_heads=3)[0].norm_pix_loss is False
    assert load_mae(path, heads=2, decoder_heads=3, norm_pix_loss=True)[0].norm_pix_loss is True


def changed(put, tmp_path, change):
    """The official file with its tensors changed by a function."""
    tensors = dict(read_weights(put("visualize.pth")).tensors)
    change(tensors)
    return write_pth(tmp_path / "changed.pth", tensors)


@pytest.mark.parametrize("change, message", [
    (lambda t: t.pop("blocks.1.attn.qkv.bias"), r"the tensor 'blocks\.1\.attn\.qkv\.bias' \(24,\) is missing"),
    (lambda t: t.pop("pos_embed"), "the tensor 'pos_embed' is missing"),
    (lambda t: t.pop("decoder_pos_embed"), "the tensor 'decoder_pos_embed' .* is missing"),
    (lambda t: t.update({"blocks.0.ls1.gamma": np.ones(8, np.float32)}), "a plain Vision Transformer, got .* LayerScale"),
    (lambda t: t.update({"blocks.0.more": np.ones(8, np.float32)}), r"'blocks\.0\.more' \(8,\) does not belong to"),
    (lambda t: t.update({"blocks.99999999.norm1.weight": np.ones(8, np.float32)}), r"'blocks\.2\.norm1\.weight' .* is missing"),
    (lambda t: t.update({"norm.weight": np.ones(9, np.float32)}), r"expected 'norm\.weight' \(8,\) of floats, got \(9,\)"),
    (lambda t: t.update({"norm.weight": np.ones(8, np.int64)}), r"expected 'norm\.weight' \(8,\) of floats, got .* int64"),
    (lambda t: t.update({"norm.bias": np.full(8, np.nan, np.float32)}), r"'norm\.bias' is not finite"),
    (lambda t: t.update({"patch_embed.proj.weight": np.ones((8, 3, 4, 2), np.float32)}), "square patches"),
    (lambda t: t.update({"patch_embed.proj.weight": np.ones((8, 48), np.float32)}), r"'patch_embed\.proj\.weight' with 4 axes"),
    (lambda t: t.update({"pos_embed": np.ones((1, 9, 8), np.float32)}), "of 8 x 8 pixels, got 9 in 'pos_embed'"),
    (lambda t: t.update({"patch_embed.proj.weight": np.ones((10**6, 1, 1, 1), np.float32)}), r"expected .* of floats, got"),
])
def test_tensors_that_do_not_fit(change, message, put, tmp_path):
    path = changed(put, tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load_mae(path, **HEADS)


def test_class_tokens_own_positions(put, tmp_path):
    """Zeros in published files; where they are not, the function stays the same."""
    offset, second = np.float32(0.5), np.float32(-0.25)

    def there(tensors):
        tensors["pos_embed"] = tensors["pos_embed"] + np.eye(1, 10, dtype=np.float32)[..., None] * offset
        tensors["cls_token"] = tensors["cls_token"] - offset
        everything = tensors["decoder_pos_embed"] + second
        tensors["decoder_pos_embed"] = everything
        tensors["decoder_embed.bias"] = tensors["decoder_embed.bias"] - second
        tensors["mask_token"] = tensors["mask_token"] - second

    config, params = load_mae(changed(put, tmp_path, there), **HEADS, dtype=np.float64)
    close_mae("visualize", config, params, np.float64, 1e-6)    # the shifted table was rounded to float32


@pytest.mark.parametrize("change, message", [
    ({"hidden_act": "gelu_new"}, "expected hidden_act 'gelu' in config.json, got 'gelu_new': our layers have no other"),
    ({"qkv_bias": False}, "expected qkv_bias True in config.json"),
    ({"hidden_size": 16}, "expected hidden_size 8 in config.json, got 16"),
    ({"num_hidden_layers": 10**12}, "expected num_hidden_layers 2 in config.json"),
    ({"num_attention_heads": 3}, "multiple of 4 and of its 3 heads, got 8"),
    ({"model_type": "dinov2"}, "expected model_type vit_mae in config.json, as the names of the tensors say, got 'dinov2'"),
    ({"num_attention_heads": 3}, "of its 3 heads, got 8"),
    ({"layer_norm_eps": math.nan}, "layer_norm_eps in config.json to be a number above 0 and below 1, got nan"),
    ({"hidden_dropout_prob": math.nan}, "hidden_dropout_prob in config.json to be a number from 0 and below 1, got nan"),
    ({"attention_probs_dropout_prob": "0"}, "attention_probs_dropout_prob in config.json"),
    ({"model_type": ["vit_mae"]}, r"expected model_type vit_mae in config.json, .* got \['vit_mae'\]"),
    ({"hidden_act": "relu"}, "expected hidden_act 'gelu'"),
    ({"num_attention_heads": "2"}, "expected num_heads as int, got '2'"),
    ({"layer_norm_eps": 0}, "layer_norm_eps in config.json to be a number above 0"),
    ({"mask_ratio": 1.5}, "mask_ratio to be a number in \\[0, 1\\), got 1.5"),
    ({"norm_pix_loss": "yes"}, "expected norm_pix_loss as bool, got 'yes'"),
])
def test_config_that_does_not_fit(change, message, put):
    folder = put("vit_mae")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load_mae(folder)


def test_settings_of_a_classifier_that_are_not_known(put):
    path = put("vit") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"position_encoding": "rotary"}))
    with pytest.raises(ValueError, match="expected position_encoding 'learned' or 'fixed', got 'rotary'"):
        load_vit(path.parent)


def test_folders_that_lack_something(put, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        load_mae(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_mae(tmp_path)
    folder = put("vit_mae")
    equal(load_mae(folder / "model.safetensors")[1], load_mae(folder)[1])                   # the file will do
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"expected an object \{\.\.\.\}, got list"):
        load_mae(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_mae(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"expected config\.json beside it"):
        load_mae(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a weight_map in it"):
        load_mae(folder)


def test_a_loaded_model_draws(put):
    config, params = load_mae(put("visualize.pth"), **HEADS)
    drawn = mae_reconstruct(GOLDEN["images"].astype(np.float32), params, config, GOLDEN["noise"])
    assert drawn.pasted.shape == GOLDEN["images"].shape


# ---- with torch, where it is installed -------------------------------------------------------------------------------

def test_torch_reads_our_files(tmp_path):
    torch = pytest.importorskip("torch")
    params = random_params(mae_init, MAE)
    found = torch.load(export_mae(tmp_path / "model.pth", MAE, params), weights_only=True)
    assert found["config"]["norm_pix_loss"] is True
    weight = found["model"]["blocks.1.attn.qkv.weight"]
    np.testing.assert_array_equal(weight.numpy(), params["encoder"]["blocks"][1]["attn"]["qkv"]["w"].T)


def test_transformers_reads_our_folders(tmp_path):
    """And computes what we compute."""
    transformers = pytest.importorskip("transformers")
    import torch

    params = random_params(mae_init, MAE, np.float64)
    images = GOLDEN["images"]
    export_vit_mae(tmp_path / "mae", MAE, params)
    theirs, info = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "mae", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    loss, cache = mae_forward(images, params, MAE, GOLDEN["noise"])
    pictures = torch.tensor(images.transpose(0, 3, 1, 2))
    found = theirs.double()(pictures, noise=torch.tensor(GOLDEN["noise"]))
    close("pred", found.logits.detach().numpy(), cache["pred"], 1e-5)                       # version 4 reads float32
    assert found.loss.item() == pytest.approx(loss, rel=1e-5)

    config = ViTConfig(**SIZES, num_classes=5, mlp_ratio=2.5, eps=3e-6)
    params = random_params(vit_init, config, np.float64)
    export_vit(tmp_path / "vit", config, params)
    theirs, info = transformers.ViTForImageClassification.from_pretrained(tmp_path / "vit", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close("logits", theirs.double().eval()(pictures).logits.detach().numpy(), vit_logits(images, params, config), 1e-5)


def test_gradients_under_their_names(put):
    """named_tensors maps gradients as it maps weights: the fused matrix is transposed, the patch embedding a convolution."""
    config, params = load_mae(put("visualize.pth"), **HEADS, dtype=np.float64)
    _, cache = mae_forward(GOLDEN["images"], params, config, GOLDEN["noise"])
    grads = named_tensors(mae_backward(1.0, cache), mae_rows(OFFICIAL, config))
    shapes = {name: tensor.shape for name, tensor in read_weights(put("visualize.pth")).tensors.items()}
    assert {name: grad.shape for name, grad in grads.items()} == {k: v for k, v in shapes.items() if "pos_embed" not in k}
    expected = GOLDEN["visualize.grad.encoder.blocks.1.attn.qkv.w"].T
    np.testing.assert_allclose(grads["blocks.1.attn.qkv.weight"], expected, rtol=0, atol=1e-12)
