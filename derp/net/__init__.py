"""Twisted adapters: sockets, TLS, HTTP, timers and files around :mod:`derp.core`."""
