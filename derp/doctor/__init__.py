"""derper doctor: one pass over a relay that checks and explains."""
