"""Simulated camera moves over pictures: paths, rendering, degradations, symmetries."""
