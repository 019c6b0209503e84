"""One run, from its spec to its record, predictions and trained network."""
