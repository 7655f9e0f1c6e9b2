"""What a run asks of the Segments and Analytics APIs."""
