"""What every command shares: its start and end, options, help and display."""
