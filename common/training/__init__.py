"""The epoch loop, the evaluation of a model, and the selection of its best epoch."""
