"""Engines of this machine: llama-servers that are compiled here, or found, and compared with the wheel's engine.

`catalogue` says which there are; `building` makes one: `sources` fetched, `tools` found, compiled by `compiling` with
the `flags` of this processor, and tried by `trial` with one of the user's `models`, a comparison of two engines in
pairs. Which is chosen, and how a server learns of it, is `engine.choice`'s business.
"""
