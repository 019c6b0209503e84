"""The code that all commands share: start and end, options, help pages and display."""
