"""Markdown, as models write it, as HTML that is safe to show. Knows no server."""
