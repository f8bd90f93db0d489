"""Audio files to mono float32 blocks: which decoder reads a file, and whether all of it was read."""
