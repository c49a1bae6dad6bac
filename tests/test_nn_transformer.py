"""A state dict of torch.nn.Transformer becomes our tree, and back; gradients get its names."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinymae import tree
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.train.optim import AdamW
from tinymae.weights.nn_transformer import from_nn_transformer, nn_transformer_names, to_nn_transformer

with np.load(Path(__file__).parent / "golden" / "transformer.npz") as file:
    GOLDEN = dict(file)
CONFIG = TransformerConfig(
    src_vocab=9, tgt_vocab=11, d_model=12, encoder_layers=2, decoder_layers=2, heads=3, d_ff=20, dropout=0.0, tie="none",
    norm_first=True, activation="gelu",
)
STATE = {name.removeprefix("pre.state."): array for name, array in GOLDEN.items() if name.startswith("pre.state.")}


def golden(prefix):
    return {name.removeprefix(prefix): array for name, array in GOLDEN.items() if name.startswith(prefix)}


def test_the_loss_of_pytorch():
    """Stacks out of the state dict, embeddings and output beside them: the model computes PyTorch's loss, and trains."""
    flat = {name: np.ascontiguousarray(array) for name, array in golden("pre.param.").items()}
    params = tree.unflatten(flat, transformer_init(CONFIG, None)) | from_nn_transformer(STATE, CONFIG, np.float64)
    loss, cache = transformer_forward(GOLDEN["src"], GOLDEN["targets"], params, CONFIG)
    assert abs(loss - GOLDEN["pre.plain.loss"]) < 1e-12
    grads = transformer_backward(1.0, cache)
    theirs = to_nn_transformer(grads, CONFIG)
    assert {name: array.shape for name, array in theirs.items()} == {name: array.shape for name, array in STATE.items()}
    stacked = theirs["decoder.layers.1.multihead_attn.in_proj_weight"]
    expected = [GOLDEN[f"pre.plain.grad.decoder.blocks.1.cross_attn.{part}.w"].T for part in "qkv"]
    np.testing.assert_allclose(stacked, np.concatenate(expected), rtol=0, atol=1e-12)
    AdamW(params).step(params, grads, 1e-3)                     # its arrays are contiguous and may be written


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back(dtype):
    params = from_nn_transformer(STATE, CONFIG, dtype)
    for path, leaf in tree.leaves(params):
        assert leaf.dtype == dtype and leaf.flags.c_contiguous, path
        np.testing.assert_array_equal(leaf, GOLDEN[f"pre.param.{path}"].astype(dtype), err_msg=path)
    back = to_nn_transformer(params, CONFIG)
    assert back.keys() == STATE.keys()
    for name, array in back.items():
        assert array.flags.c_contiguous and not any(np.shares_memory(array, leaf) for _, leaf in tree.leaves(params)), name
        np.testing.assert_array_equal(array, STATE[name].astype(dtype), err_msg=name)


def test_every_name_once():
    names = nn_transformer_names(CONFIG)
    paths = [path for stacked in names.values() for path in stacked]
    stacks = {name: part for name, part in transformer_init(CONFIG, None).items() if name in ("encoder", "decoder")}
    assert names.keys() == STATE.keys() and sorted(paths) == sorted(path for path, _ in tree.leaves(stacks))


@pytest.mark.parametrize(("changed", "message"), [
    ({"encoder.norm.weight": None}, "1 missing, such as 'encoder.norm.weight'; strip the prefix"),
    ({"tgt.weight": np.zeros(3)}, "1 left over, such as 'tgt.weight'"),
    ({"encoder.layers.0.linear1.weight": np.zeros((12, 20))}, r"linear1.weight \(20, 12\), got \(12, 20\)"),
    ({"encoder.layers.0.self_attn.in_proj_bias": np.zeros(12)}, r"in_proj_bias \(36,\), got \(12,\)"),
])
def test_a_state_that_does_not_fit(changed, message):
    state = {name: array for name, array in (STATE | changed).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        from_nn_transformer(state, CONFIG)


@pytest.mark.parametrize("changed", [{"final_norm": False}, {"bias": False}, {"d_k": 5, "d_v": 5}])
def test_a_model_that_nn_transformer_does_not_have(changed):
    with pytest.raises(ValueError, match=r"expected final_norm=True, bias=True and no d_k or d_v"):
        to_nn_transformer(transformer_init(replace(CONFIG, **changed), None), replace(CONFIG, **changed))


def test_another_tree():
    with pytest.raises(ValueError, match="expected params of this config: 32 missing"):
        to_nn_transformer(transformer_init(replace(CONFIG, encoder_layers=0), None), CONFIG)
