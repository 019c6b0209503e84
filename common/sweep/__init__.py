"""Sweeps: many runs of one experiment with some fields varied, chosen between by their validation accuracy."""
