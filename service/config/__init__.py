"""The configuration: its tables, what is wrong with one, the cores that there are."""
