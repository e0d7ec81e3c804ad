"""Relay state and policy: no I/O, no clock, no reactor, no logging. Time is an argument."""
