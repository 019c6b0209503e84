"""The geometry of crops and resizes, with its random draws, and the normalisation of pixels."""
