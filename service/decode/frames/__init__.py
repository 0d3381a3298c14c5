"""Decoding of the frames that a plan asks for, in order, into units."""
