"""Figures, one kind per module: each takes a board, a record or plain numbers and returns a matplotlib figure."""
