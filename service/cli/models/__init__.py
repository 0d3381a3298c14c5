"""``tubelet models``: list, show, import, verify and remove models."""
