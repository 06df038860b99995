"""The page in the browser: a few files that use the public API, sent to those who ask for HTML at `/`.

`docs/page.md` shows the way of a message through it.
"""

from corral.server.page.routes import ROUTES

__all__ = ["ROUTES"]
