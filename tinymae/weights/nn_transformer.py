"""torch.nn.Transformer and our Transformer: which of its tensors is which of our arrays, and both directions.

    nn.Transformer                                   ours, under "encoder" or "decoder"
    encoder.layers.0.self_attn.in_proj_weight        blocks.0.attn.{q,k,v}.w        three matrices on top of each other
    decoder.layers.0.self_attn.in_proj_weight        blocks.0.self_attn.{q,k,v}.w
    decoder.layers.0.multihead_attn.in_proj_weight   blocks.0.cross_attn.{q,k,v}.w
    encoder.layers.0.linear1.weight                  blocks.0.ffn.fc1.w
    encoder.layers.0.norm1.weight                    blocks.0.ln1.gamma
    encoder.norm.weight                              norm.gamma

A weight is (out, in) there and (in, out) here. All of this is also true of gradients, so `to_nn_transformer` gives a tree of
gradients the names under which PyTorch keeps them, to compare both number by number.

Embeddings, positions and the output layer are not part of nn.Transformer. It has a layer norm after each stack, also in
post-norm: our config needs `final_norm=True`.
"""
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinymae import tree
from tinymae.models.transformer import TransformerConfig, transformer_init


def nn_transformer_names(config: TransformerConfig) -> dict[str, tuple[str, ...]]:
    """{name in the state dict of nn.Transformer: the path of our array, or the paths of the three that it stacks}.

    Raises
    ------
    ValueError
        if nn.Transformer has no such model: it has a last layer norm, biases, and heads of dimension D / H
    """
    head = config.d_model // config.heads
    if not config.has_final_norm or not config.bias or {config.d_k or head, config.d_v or head} != {head}:
        raise ValueError(
            "nn.Transformer has a layer norm after each stack, biases everywhere, and heads of dimension d_model / heads: "
            f"expected final_norm=True, bias=True and no d_k or d_v, got {config}"
        )
    names = {}

    def norm(theirs, ours):
        names.update({f"{theirs}.weight": (f"{ours}.gamma",), f"{theirs}.bias": (f"{ours}.beta",)})

    def linear(theirs, ours):
        names.update({f"{theirs}.weight": (f"{ours}.w",), f"{theirs}.bias": (f"{ours}.b",)})

    attentions = {"encoder": {"self_attn": "attn"}, "decoder": {"self_attn": "self_attn", "multihead_attn": "cross_attn"}}
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for i in range(layers):
            theirs, ours = f"{stack}.layers.{i}", f"{stack}.blocks.{i}"
            for name, attention in attentions[stack].items():
                for part, leaf in (("weight", "w"), ("bias", "b")):
                    names[f"{theirs}.{name}.in_proj_{part}"] = tuple(f"{ours}.{attention}.{x}.{leaf}" for x in "qkv")
                linear(f"{theirs}.{name}.out_proj", f"{ours}.{attention}.out")
            for n in (1, 2):
                linear(f"{theirs}.linear{n}", f"{ours}.ffn.fc{n}")
            for n in range(1, 2 + len(attentions[stack])):
                norm(f"{theirs}.norm{n}", f"{ours}.ln{n}")
        norm(f"{stack}.norm", f"{stack}.norm")
    return names


def from_nn_transformer(state: Mapping[str, ArrayLike], config: TransformerConfig, dtype: DTypeLike = np.float32) -> dict:
    """The two stacks of `transformer_init` from the state dict of an nn.Transformer.

    Parameters
    ----------
    state : {name: array, or tensor in the processor's memory}, names as `nn.Transformer.state_dict` has them
    config : with `final_norm=True`; its vocabularies and positions do not matter
    dtype : of the result, float32 or float64

    Returns
    -------
    {"encoder", "decoder"} : trees of fresh, contiguous arrays, ready to be trained. `transformer_init(config, rng) | this` is a
        whole model

    Raises
    ------
    ValueError
        if a tensor is missing, left over, or of another shape; as `nn_transformer_names`
    """
    names = nn_transformer_names(config)
    _complete(names, state, "the state dict of an nn.Transformer", "strip the prefix of a larger module")
    like, flat = _stacks(transformer_init(config, None)), {}
    shapes = {path: leaf.shape for path, leaf in tree.leaves(like)}
    for name, paths in names.items():
        array = np.asarray(state[name], dtype)
        expected = shapes[paths[0]][::-1]
        expected = (len(paths) * expected[0], *expected[1:])
        if array.shape != expected:
            raise ValueError(f"expected {name} {expected}, got {array.shape}: does the config fit the model?")
        flat |= {path: np.array(part.T, order="C") for path, part in zip(paths, np.split(array, len(paths)), strict=True)}
    return tree.unflatten(flat, like)


def to_nn_transformer(params: dict, config: TransformerConfig) -> dict[str, np.ndarray]:
    """Our two stacks, or their gradients, under the names of nn.Transformer: the inverse of `from_nn_transformer`.

    Parameters
    ----------
    params : tree of `transformer_init`, or a gradient of it; only "encoder" and "decoder" are read
    config : of the model

    Returns
    -------
    {name: fresh, contiguous ndarray}. `model.load_state_dict({k: torch.from_numpy(v) for k, v in this.items()})` loads them

    Raises
    ------
    ValueError
        if an array is missing or left over; as `nn_transformer_names`
    """
    names = nn_transformer_names(config)
    flat = dict(tree.leaves(_stacks(params)))
    _complete({path for paths in names.values() for path in paths}, flat, "params of this config", "another model?")
    return {name: np.ascontiguousarray(np.concatenate([flat[path].T for path in paths])) for name, paths in names.items()}


def _stacks(params):
    return {name: params[name] for name in ("encoder", "decoder")}


def _complete(names, found, what, cause):
    """Raise a ValueError unless `found` has exactly these names."""
    for problem, wrong in (("missing", set(names) - set(found)), ("left over", set(found) - set(names))):
        if wrong:
            raise ValueError(f"expected {what}: {len(wrong)} {problem}, such as {min(wrong)!r}; {cause}")
