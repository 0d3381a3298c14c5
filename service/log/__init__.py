"""The log on standard error: one form for all its lines, whatever text they hold."""
