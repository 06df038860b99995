"""The server as a service of the system, which starts it with the machine or the user's session and again when it ends.

A recipe (`recipe.py`) says which file a system's own service manager wants, and which of its commands go with it:
`systemd`, `launchd` and `task_scheduler` make one of the same definition, as plain text. `install.py` carries it out.
"""
