"""The interfaces between a backend and its users: its functions, an experiment, results, and a watch of a run."""
