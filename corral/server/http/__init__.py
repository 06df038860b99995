"""HTTP as every dialect needs it: bodies read, answers written, who may pass, what routes say of themselves.

Knows no dialect.
"""
