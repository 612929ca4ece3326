"""A package, so that its modules and those beside this folder can have the same names."""
