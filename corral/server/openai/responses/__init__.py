"""OpenAI's responses: items of a conversation in, items out, and what is kept of them (spec api §18).

`wire` reads requests, `items` turns items into messages, `replies` and `writer` write responses and their events,
`kept` holds them on disk.
"""
