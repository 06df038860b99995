"""Readers of files from strangers, fed with random bytes that learn from the paths they take (atheris, libFuzzer).

`targets` says what is fed and what may come of it, `seeds` what to begin with, `fuzzer` runs one target in a process.
`scripts/fuzz` runs them for as long as one likes, `tests/test_fuzz.py` for some seconds each.
"""
