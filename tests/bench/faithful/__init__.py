"""Measures whether explanations are true."""
