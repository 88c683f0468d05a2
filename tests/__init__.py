"""Tests of fgtools and of the notebooks."""
