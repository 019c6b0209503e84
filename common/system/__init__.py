"""What every room needs of the system: errors for people, files, caches, the machine."""
