"""A video's bytes, uploaded or fetched from a URI, into one seekable file."""
