"""A batch on a Ray cluster: actors that classify, and the driver that gives them videos."""
