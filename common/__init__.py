"""What the experiment is, in terms of no framework: importing this package imports none of them."""
