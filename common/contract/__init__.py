"""What a backend provides, what training gives back, and who is told how it goes."""
