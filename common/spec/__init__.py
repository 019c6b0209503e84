"""What a user chooses: the experiment's fields, and presets of them."""
