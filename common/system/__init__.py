"""The system beneath every part of the project: errors for people, files, caches, the machine."""
