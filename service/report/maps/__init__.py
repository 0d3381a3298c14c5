"""Explanations as pictures and files: maps over time, their colours, their summary."""
