"""The configuration: its tables, how they are read, and the sentences for what is wrong with one."""
