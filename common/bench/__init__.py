"""Measure speed against the chapter's own code."""
