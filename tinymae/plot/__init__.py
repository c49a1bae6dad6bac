"""Figures for lessons and commands: arrays in, a Matplotlib Figure out, with labelled axes and a caption that says how to
read it. `plot.save(plot.attention(weights), "attention.png")` writes one. A notebook shows the figure that a cell ends with
and, after `%load_ext tinymae.plot.notebook`, those that its cells write.
"""
from tinymae.plot.attention_heatmaps import attention, attention_lines, attention_over_picture, rollout_over_pictures
from tinymae.plot.diagrams import encoder_decoder
from tinymae.plot.images import reconstructions, shuffle
from tinymae.plot.line_charts import curves, learning_rates, loss_curve
from tinymae.plot.mask_heatmaps import masks
from tinymae.plot.matrices import Panel, heatmaps, output_probabilities
from tinymae.plot.position_heatmaps import position_grid, position_rotation, positional_encoding
from tinymae.plot.scatter import points
from tinymae.plot.style import save

__all__ = (
    "Panel", "attention", "attention_lines", "attention_over_picture", "curves", "encoder_decoder", "heatmaps",
    "learning_rates", "loss_curve", "masks", "output_probabilities", "points", "position_grid", "position_rotation",
    "positional_encoding", "reconstructions", "rollout_over_pictures", "save", "shuffle",
)
