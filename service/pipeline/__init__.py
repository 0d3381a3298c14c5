"""The steps of one request: admission, plan, windows, segments."""
