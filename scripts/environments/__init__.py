"""The environments of the backends and the tools: their definitions, building one, moving into one."""
