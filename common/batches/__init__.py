"""Batches for a backend: by the shared, the native or the resident pipeline, or of features computed once."""
