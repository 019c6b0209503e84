"""The networks in terms of no framework: tables of ResNet, stages, adapters, weights files and their sources."""
