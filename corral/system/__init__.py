"""What differs from system to system, a module a subject; nothing above asks which system this is.

Each module has one implementation for each family of systems, whose dependencies (the system's own module, its calls)
are arguments, so that every one of them can be run anywhere. Tried on Linux only; see docs/platforms.md.
"""
