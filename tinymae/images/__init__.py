"""Images: from files and data sets to float32 pixels, and the fills that a model is compared with."""
