"""Where an experiment computes: device, precision, processes."""
