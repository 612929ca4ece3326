"""Tests of the sources that a sampler reads."""
