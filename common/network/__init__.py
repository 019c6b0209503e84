"""Architectures and their numbers: tables of ResNet, stages, adapters, the weights format and its sources."""
