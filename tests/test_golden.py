"""Our numbers against PyTorch's, frozen in tests/golden: outputs, every gradient, training losses, schedules."""
from pathlib import Path

import numpy as np
import pytest

from tinymae import blocks, tree
from tinymae.models.mae import MAEConfig, mae_backward, mae_count, mae_decays, mae_forward, mae_init
from tinymae.ops import activation, attention, embedding, layernorm, linear, losses, positional, softmax
from tinymae.train.optim import SGD, AdamW, clip_grad_norm, noam, warmup_cosine

GOLDEN = Path(__file__).parent / "golden"
DTYPES = {"float64": (np.float64, 1e-12), "float32": (np.float32, 1e-5)}


def load(name):
    with np.load(GOLDEN / name) as file:
        return dict(file)


OPS, MAE, OPTIM = (load(name) for name in ("ops.npz", "mae.npz", "optim.npz"))


@pytest.fixture(params=DTYPES)
def precision(request):
    """(cast, check): cast a reference array to the dtype under test; check a result against its reference."""
    dtype, tolerance = DTYPES[request.param]

    def cast(array):
        return array.astype(dtype) if array.dtype == np.float64 else array

    def check(name, ours, reference):
        ours = np.asarray(ours)
        assert ours.shape == reference.shape, name
        assert ours.dtype == dtype, f"{name} is {ours.dtype}"
        # a key's bias moves all scores of a query alike, softmax ignores it, its gradient is zero but for rounding
        scale = 1.0 if name.endswith("k.b") else np.abs(reference).max()
        error = np.abs(ours - reference).max() / scale
        assert error < tolerance, f"{name}: relative error {error:.1e}"

    return cast, check


def case(name, cast):
    """The arrays of a case in ops.npz: {"x": ..., "dx": ..., "param.q.w": ...}."""
    return {key.removeprefix(name + "."): cast(array) for key, array in OPS.items() if key.startswith(name + ".")}


def nested(flat, prefix):
    """{"param.q.w": a} -> {"q": {"w": a}}."""
    root = {}
    for path, leaf in flat.items():
        if path.startswith(prefix):
            *branches, last = path.removeprefix(prefix).split(".")
            node = root
            for branch in branches:
                node = node.setdefault(branch, {})
            node[last] = leaf
    return root


def check_tree(check, grads, flat):
    expected = {path.removeprefix("grad."): leaf for path, leaf in flat.items() if path.startswith("grad.")}
    ours = dict(tree.leaves(grads))
    assert ours.keys() == expected.keys()
    for path, leaf in ours.items():
        check(path, leaf, expected[path])


SIMPLE = {
    "linear": (linear.linear_forward, linear.linear_backward, ("x", "w", "b"), {}),
    "softmax": (softmax.softmax_forward, softmax.softmax_backward, ("x",), {}),
    "layernorm": (layernorm.layernorm_forward, layernorm.layernorm_backward, ("x", "gamma", "beta"), {}),
    "relu": (activation.relu_forward, activation.relu_backward, ("x",), {}),
    "gelu": (activation.gelu_forward, activation.gelu_backward, ("x",), {}),
    "gelu_tanh": (activation.gelu_forward, activation.gelu_backward, ("x",), {"approximate": "tanh"}),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_op(name, precision):
    cast, check = precision
    forward, backward, arguments, options = SIMPLE[name]
    c = case(name, cast)
    y, cache = forward(*(c[a] for a in arguments), **options)
    check("y", y, OPS[f"{name}.y"])
    gradients = backward(c["dy"], cache)
    for argument, gradient in zip(arguments, gradients if isinstance(gradients, tuple) else (gradients,), strict=True):
        check(f"d{argument}", gradient, OPS[f"{name}.d{argument}"])


def test_embedding(precision):
    cast, check = precision
    c = case("embedding", cast)
    y, cache = embedding.embedding_forward(c["ids"], c["table"])
    check("y", y, OPS["embedding.y"])
    check("dtable", embedding.embedding_backward(c["dy"], cache), OPS["embedding.dtable"])


def test_scaled_dot_product_attention(precision):
    cast, check = precision
    c = case("attention", cast)
    y, cache = attention.scaled_dot_product_attention_forward(c["q"], c["k"], c["v"], c["mask"])
    check("y", y, OPS["attention.y"])
    check("weights", cache.weights, OPS["attention.weights"])
    gradients = attention.scaled_dot_product_attention_backward(c["dy"], cache)
    for name, gradient in zip(("dq", "dk", "dv"), gradients, strict=True):
        check(name, gradient, OPS[f"attention.{name}"])


@pytest.mark.parametrize(("name", "smoothing"), [("plain", 0.0), ("smooth", 0.1)])
def test_cross_entropy(name, smoothing, precision):
    cast, check = precision
    c = case("cross_entropy", cast)
    loss, cache = losses.cross_entropy_forward(c["logits"], c["targets"], ignore_index=0, label_smoothing=smoothing)
    check("loss", loss, OPS[f"cross_entropy.{name}.loss"])
    dlogits = losses.cross_entropy_backward(1.0, cache)
    check("dlogits", dlogits, OPS[f"cross_entropy.{name}.dlogits"])


@pytest.mark.parametrize("name", ["mha_self", "mha_cross"])
def test_multi_head_attention(name, precision):
    cast, check = precision
    c = case(name, cast)
    memory = c.get("memory", c["x"])
    y, cache = blocks.multi_head_attention_forward(c["x"], memory, nested(c, "param."), 3, c.get("mask"))
    check("y", y, OPS[f"{name}.y"])
    check("weights", blocks.attention_weights(cache), OPS[f"{name}.weights"])
    dx, dmemory, dp = blocks.multi_head_attention_backward(c["dy"], cache)
    if name == "mha_self":
        dx = dx + dmemory
    else:
        check("dmemory", dmemory, OPS[f"{name}.dmemory"])
    check("dx", dx, OPS[f"{name}.dx"])
    check_tree(check, dp, c)


def test_fused_attention_equals_separate(precision):
    cast, check = precision
    c = case("mha_cross", cast)
    p = nested(c, "param.")
    fused = {"qkv": {n: np.concatenate([p[k][n] for k in "qkv"], axis=-1) for n in "wb"}, "out": p["out"]}
    y, cache = blocks.multi_head_attention_forward(c["x"], c["memory"], fused, 3)
    check("y", y, OPS["mha_cross.y"])
    dx, dmemory, dp = blocks.multi_head_attention_backward(c["dy"], cache)
    check("dx", dx, OPS["mha_cross.dx"])
    check("dmemory", dmemory, OPS["mha_cross.dmemory"])
    for n in "wb":
        reference = np.concatenate([OPS[f"mha_cross.grad.{k}.{n}"] for k in "qkv"], axis=-1)
        check(f"qkv.{n}", dp["qkv"][n], reference)


@pytest.mark.parametrize("name", ["post", "pre"])
def test_encoder_layer(name, precision):
    cast, check = precision
    c = case(f"encoder_{name}", cast)
    options = {"norm_first": name == "pre", "activation": "gelu" if name == "pre" else "relu"}
    y, cache = blocks.encoder_layer_forward(c["x"], nested(c, "param."), 3, **options)
    check("y", y, OPS[f"encoder_{name}.y"])
    dx, dp = blocks.encoder_layer_backward(c["dy"], cache)
    check("dx", dx, OPS[f"encoder_{name}.dx"])
    check_tree(check, dp, c)


@pytest.mark.parametrize("name", ["post", "pre"])
def test_decoder_layer(name, precision):
    cast, check = precision
    c = case(f"decoder_{name}", cast)
    options = {"norm_first": name == "pre", "activation": "gelu" if name == "pre" else "relu"}
    y, cache = blocks.decoder_layer_forward(c["x"], c["memory"], nested(c, "param."), 3, c["mask"], **options)
    check("y", y, OPS[f"decoder_{name}.y"])
    dx, dmemory, dp = blocks.decoder_layer_backward(c["dy"], cache)
    check("dx", dx, OPS[f"decoder_{name}.dx"])
    check("dmemory", dmemory, OPS[f"decoder_{name}.dmemory"])
    check_tree(check, dp, c)


# Masked autoencoder ------------------------------------------------------------------------------------------------

def mae_config(norm, ratio):
    return MAEConfig(
        img_size=12, patch_size=4, in_chans=3, embed_dim=8, depth=2, num_heads=4, decoder_embed_dim=12, decoder_depth=1,
        decoder_num_heads=3, mask_ratio=ratio, norm_pix_loss=norm,
    )


BLOCK = {
    "ln1.gamma": "norm1.weight", "ln1.beta": "norm1.bias", "ln2.gamma": "norm2.weight", "ln2.beta": "norm2.bias",
    "attn.qkv.w": "attn.qkv.weight", "attn.qkv.b": "attn.qkv.bias", "attn.out.w": "attn.proj.weight",
    "attn.out.b": "attn.proj.bias", "ffn.fc1.w": "mlp.fc1.weight", "ffn.fc1.b": "mlp.fc1.bias",
    "ffn.fc2.w": "mlp.fc2.weight", "ffn.fc2.b": "mlp.fc2.bias",
}
NAMES = {
    "encoder.patch_embed.w": "patch_embed.proj.weight", "encoder.patch_embed.b": "patch_embed.proj.bias",
    "encoder.cls_token": "cls_token", "encoder.norm.gamma": "norm.weight", "encoder.norm.beta": "norm.bias",
    "decoder.embed.w": "decoder_embed.weight", "decoder.embed.b": "decoder_embed.bias",
    "decoder.mask_token": "mask_token", "decoder.norm.gamma": "decoder_norm.weight",
    "decoder.norm.beta": "decoder_norm.bias", "decoder.pred.w": "decoder_pred.weight", "decoder.pred.b": "decoder_pred.bias",
}


def official(path):
    """Our path -> the paper's code's name."""
    if ".blocks." in path:
        side, _, index, rest = path.split(".", 3)
        return f"{'blocks' if side == 'encoder' else 'decoder_blocks'}.{index}.{BLOCK[rest]}"
    return NAMES[path]


def ours(name, array):
    """The paper's code's array -> our layout: (out, in) to (in, out), a convolution's (D, C, p, p) to (p p C, D)."""
    if name == "patch_embed.proj.weight":
        return array.transpose(2, 3, 1, 0).reshape(-1, len(array))
    return array.T if name.endswith("weight") and array.ndim == 2 else array


def mae_tree(prefix, cast, config):
    like = mae_init(config, None)
    names = {path: official(path) for path, _ in tree.leaves(like)}
    return tree.unflatten({path: cast(ours(n, MAE[prefix + n])).copy() for path, n in names.items()}, like)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_mae(norm, ratio, precision):
    cast, check = precision
    config = mae_config(norm, ratio)
    name = f"{'norm' if norm else 'plain'}.{ratio}"
    loss, cache = mae_forward(cast(MAE["images"]), mae_tree("param.", cast, config), config, MAE["noise"])
    check("loss", loss, MAE[f"{name}.loss"])
    check("pred", cache["pred"], MAE[f"{name}.pred"])
    np.testing.assert_array_equal(cache["mask"], MAE[f"{name}.mask"])
    grads = mae_backward(1.0, cache)
    for (path, gradient), (_, reference) in zip(
        tree.leaves(grads), tree.leaves(mae_tree(f"{name}.grad.", lambda a: a, config)), strict=True
    ):
        check(path, gradient, reference)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_mae_twenty_steps(norm, precision):
    cast, check = precision
    config = mae_config(norm, 0.75)
    name = "norm" if norm else "plain"
    params = mae_tree("param.", cast, config)
    optimizer = AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params))
    losses = []
    for noise in MAE["train.noise"]:
        loss, cache = mae_forward(cast(MAE["images"]), params, config, noise)
        losses.append(loss)
        optimizer.step(params, mae_backward(1.0, cache), lr=1e-3)
    check("losses", np.array(losses), MAE[f"train.{name}.losses"])
    if not norm and losses[0].dtype == np.float64:
        reference = mae_tree("train.plain.param.", cast, config)
        for (path, leaf), (_, expected) in zip(tree.leaves(params), tree.leaves(reference), strict=True):
            if path.endswith("qkv.b"):                          # the key's third: gradient 0, so Adam divides noise by noise
                leaf, expected = (np.delete(a, np.s_[a.size // 3 : 2 * a.size // 3]) for a in (leaf, expected))
            check(path, leaf, expected)


def test_positions():
    tables = mae_config(False, 0.5).position_tables(np.float64)
    for name, positions in zip(("pos_embed", "decoder_pos_embed"), tables, strict=True):
        assert not MAE[name][0, 0].any()                        # the class token's, which we leave out
        np.testing.assert_allclose(positions, MAE[name][0, 1:], rtol=0, atol=1e-15)


def test_parameter_counts():
    base = MAEConfig()
    assert mae_count(base) == 111_907_840
    assert mae_count(MAEConfig(embed_dim=1024, depth=24, num_heads=16)) == 329_541_888
    # the ViT-B/16 classifier is this encoder, a position for each of its 197 tokens, and a linear map to 1000 classes
    encoder = tree.count(mae_init(base, None)["encoder"])
    assert encoder + 197 * 768 + (768 * 1000 + 1000) == 86_567_656


# Optimiser and schedules -----------------------------------------------------------------------------------------------

def test_adamw():
    o = {key.removeprefix("adamw."): value for key, value in OPTIM.items() if key.startswith("adamw.")}
    params = {"a": o["start.a"].copy(), "b": o["start.b"].copy()}
    decays = {"a": True, "b": False}
    optimizer = AdamW(
        params, betas=tuple(o["betas"]), eps=float(o["eps"]), weight_decay=float(o["weight_decay"]), decays=decays
    )
    for t, lr in enumerate(o["lr"]):
        optimizer.step(params, {"a": o["grad.a"][t], "b": o["grad.b"][t]}, float(lr))
        for name in "ab":
            np.testing.assert_allclose(params[name], o[f"param.{name}"][t], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["plain", "momentum", "nesterov"])
def test_sgd(name):
    o = {key.removeprefix(f"sgd.{name}."): value for key, value in OPTIM.items() if key.startswith(f"sgd.{name}.")}
    params = {"a": o["start.a"].copy(), "b": o["start.b"].copy()}
    options = {key: o[key].item() for key in ("momentum", "weight_decay", "nesterov") if key in o}
    optimizer = SGD(params, **options, decays={"a": True, "b": False})
    for t, lr in enumerate(o["lr"]):
        optimizer.step(params, {"a": o["grad.a"][t], "b": o["grad.b"][t]}, float(lr))
        for key in "ab":
            np.testing.assert_allclose(params[key], o[f"param.{key}"][t], rtol=1e-13, atol=1e-15)
    assert optimizer.t == 10


@pytest.mark.parametrize("name", ["above", "below"])
def test_clip_grad_norm(name):
    c = {key.removeprefix(f"clip.{name}."): value for key, value in OPTIM.items() if key.startswith(f"clip.{name}.")}
    grads = {key: c[f"before.{key}"].copy() for key in "abc"}
    assert clip_grad_norm(grads, float(c["max_norm"])) == pytest.approx(float(c["total_norm"]), rel=1e-12)
    for key in "abc":
        np.testing.assert_allclose(grads[key], c[f"after.{key}"], rtol=1e-12)


@pytest.mark.parametrize("name", ["cosine", "cosine_min"])
def test_warmup_cosine(name):
    s = {key.removeprefix(f"schedule.{name}."): value for key, value in OPTIM.items() if key.startswith(f"schedule.{name}.")}
    rates = [warmup_cosine(t, int(s["total"]), int(s["warmup"]), float(s["lr"]), float(s["min_lr"])) for t in range(30)]
    np.testing.assert_allclose(rates, s["rates"], rtol=1e-12, atol=1e-18)


def test_noam():
    s = {key.removeprefix("schedule.noam."): value for key, value in OPTIM.items() if key.startswith("schedule.noam.")}
    rates = [noam(t, int(s["d_model"]), int(s["warmup"]), float(s["factor"])) for t in range(1, 31)]
    np.testing.assert_allclose(rates, s["rates"], rtol=1e-12)


def test_sinusoidal_layouts_hold_the_same_numbers():
    interleaved, halves = positional.sinusoidal_interleaved(21, 8), positional.sinusoidal_halves(21, 8)
    np.testing.assert_array_equal(np.concatenate([interleaved[:, 0::2], interleaved[:, 1::2]], axis=1), halves)
