"""Pure codecs: bytes to values and back. No I/O, no clock, no state that outlives a call."""
