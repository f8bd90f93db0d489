"""Decode audio files to mono float32 blocks: choose the decoder, and check that the whole file was read."""
