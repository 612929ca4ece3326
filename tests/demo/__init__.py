"""A package, so that `demo.test_service` and a `test_service` beside this folder can coexist."""
