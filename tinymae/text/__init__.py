"""Text: from sentences to batches of ids, and the sentence pairs that need no download."""
