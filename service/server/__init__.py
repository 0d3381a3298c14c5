"""The server's process: builds all parts, loads and reloads models, and drains at the end."""
