"""The files of BATCH messages as rows."""
