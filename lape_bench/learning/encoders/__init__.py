"""Encoders, their front ends and their heads."""
