"""The environments of the backends and the tools: which there are, building one, moving into one."""
