"""A package, so that these tests may be called what those in other folders are called."""
