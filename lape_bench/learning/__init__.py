"""Encoders, front ends, views, and the loops that train and probe them."""
