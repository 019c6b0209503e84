"""The devices of an experiment: their description, the precision of their arithmetic, their processes."""
