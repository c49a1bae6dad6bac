"""The server of the live page, on this machine alone (to come)."""
