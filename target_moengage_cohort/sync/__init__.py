"""One run: from the messages of a tap to a report."""
