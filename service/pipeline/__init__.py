"""One request: admission, plan, windows, segments."""
