"""`cope-live watch`: all roles in one process, on embedded parts or on the servers that the settings name."""
