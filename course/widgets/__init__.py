"""The course's widgets: each folder holds a Python class, and a script of the same name."""
