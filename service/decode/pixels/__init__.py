"""Conversion of a decoded frame to RGB at the model's size: colours, tones, crop, orientation, resampling."""
