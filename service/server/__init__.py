"""The server's process: builds the parts, loads and reloads models, drains."""
