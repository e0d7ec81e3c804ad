"""derpprobe: watches relays from outside. Checks, their schedule, their page and their alerts."""
