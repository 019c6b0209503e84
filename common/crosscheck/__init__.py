"""Check by numbers that one experiment is the same experiment in every framework.

Each backend writes a probe in its own environment (`probe`), and the comparison reads the probes of all (`compare`).
`scenarios` defines for both what is examined.
"""
