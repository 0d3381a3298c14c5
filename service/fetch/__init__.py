"""Videos from where they are: opened by their URI, read in parts as a decoder asks for them."""
