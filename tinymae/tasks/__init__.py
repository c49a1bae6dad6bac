"""What tinymae is for: restore images, classify them, translate sentences, and measure what an encoder has learned."""
