"""Which of several places answers a request for one model: this machine, workers on other nodes, other servers.

Pure decisions and the state that they need; connects to nothing.
"""
