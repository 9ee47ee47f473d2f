"""Where cells run, one executor a file."""
