"""The steps of one request: plan, windows, segments."""
