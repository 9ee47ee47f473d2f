"""Write, read and merge records, describe their fields, and lock the folder that they lie in."""
