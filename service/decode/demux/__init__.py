"""Bytes to packets and time stamps: containers, streams, clocks."""
