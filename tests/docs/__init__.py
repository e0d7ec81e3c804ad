"""What README and documentation say, tried out."""
