"""What the relay costs, measured beside other relays. See ``README.rst``."""
