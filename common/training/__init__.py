"""The epoch loop, evaluation, and what chooses between epochs."""
