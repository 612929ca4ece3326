"""
What the sampler reads by itself: one file per source.

Rule: a source is a function without arguments that returns `Readings`; what is not known is left
out of them, never 0.
"""
