"""A package, so that `queues.test_options` and a `test_options` beside this folder can coexist."""
