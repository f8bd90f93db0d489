"""Encoders: waveforms in, one embedding a clip out."""
