"""tinymae: the Transformer you can read, in NumPy, every backward pass by hand directly below its forward pass.

The Transformer itself, in reading order; all of it needs NumPy alone:

    ops         the mathematics, one concept a file: linear, embedding, positional, softmax, attention,
                memory_efficient_attention, layernorm, activation, dropout, patches, losses
    init  masks  tree       parameters from an rng, attention masks, trees of arrays
    blocks      ops made into layers: multi-head attention, feed forward, Add & Norm, encoder, decoder
    models      patch_encoder, vit, mae, transformer; decoding, attention_maps, fine_tuning
    gradcheck   is a backward pass right? For these functions and for yours
    trace       every op of a pass, forward and backward side by side

What stands on it:

    train       optim, loop, parallel, checkpoint: knows no model
    images      from files and data sets to pixels          text        from sentences to batches of ids
    weights     published models, read and written          tasks       restore, classify, translate, probe
    plot        arrays in, a figure out                     learn       lessons, exercises, and their checks
    estimator   the models as scikit-learn estimators       cli         the commands of python -m tinymae

Start with `ops.layernorm`, go on to `blocks`, and end at `models.mae`. NOTATION.md is the contract that all of them keep.
"""

__version__ = "0.3.0"
