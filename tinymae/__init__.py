"""tinymae: the Transformer you can read, in NumPy, every backward pass by hand directly below its forward.

    ops         one concept a file: linear, embedding, positional, softmax, attention, layernorm, activation, dropout,
                patches, losses, memory_efficient_attention
    blocks      multi-head attention, feed forward, encoder layer, decoder layer
    models      vit (the encoder), mae (the masked autoencoder), transformer (the encoder-decoder that translates)
    masks       padding and causal;  decode: greedy, beam search, sampling
    init        parameters from an rng;  tree: what to do with them
    optim       AdamW, clipping, schedules;  parallel: one gradient from many threads or MPI ranks
    training    the loop;  checkpoint: save and resume
    gradcheck   is a backward right? For these functions and for yours;  invariants: what a gradient check cannot see
    plot        arrays in, a Figure out;  plot_text: the same for words;  plot_lessons: for experiments
    trace       what flowed where, forward and backward side by side
    lesson      the lessons, cell by cell;  exercises: blanks to fill in, and a check that says what is wrong
    demo        the main job, python -m tinymae;  translation: sentence pairs in, translations out

Start with `ops.layernorm`, then `blocks`, then `models.mae`. The contract that all of them keep is in NOTATION.md.
"""

__version__ = "0.2.0"
