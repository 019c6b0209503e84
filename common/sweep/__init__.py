"""Sweep over fields of an experiment: many runs with other values, the best chosen by its validation accuracy."""
