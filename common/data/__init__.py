"""From a name or path to labelled samples and upright pixels."""
