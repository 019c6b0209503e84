"""The commands, `python -m scripts.<name>`: each finds, or builds, the environment that has what it needs."""
