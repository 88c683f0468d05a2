"""Tests of the room `gold`."""
