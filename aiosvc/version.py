"""The version, written once: the package, the build and `aiosvc_build_info` read it here."""

__all__ = ["__version__"]

__version__ = "0.1.0"
