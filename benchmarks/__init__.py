"""Measurements that compare, in one run, what the project claims; run as `python -m benchmarks.NAME`."""
