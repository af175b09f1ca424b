"""Training data: manifests, the bank of audio in memory, the mixer, and datasets of pairs (which need torch)."""
