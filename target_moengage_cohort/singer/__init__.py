"""A Singer input as messages and rows, and rows as a Singer file."""
