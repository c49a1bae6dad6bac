"""Published weights: read safely, recognised, loaded into our models, and written."""
