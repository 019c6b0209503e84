"""The numerical evidence that one experiment is one experiment in every framework.

Each backend writes a probe in its own environment (`probe`); the comparison reads them all (`compare`). Both know
what is examined from `scenarios`.
"""
