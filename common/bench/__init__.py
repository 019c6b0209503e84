"""Speed, measured against the chapter's own code."""
