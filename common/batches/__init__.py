"""Batches for a backend: of the shared or the framework's own pipeline, on the device, or of features."""
