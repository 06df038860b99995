"""Who may use the server, and for what: keys, what each allows, and the line that is kept of each managing action.

Knows neither HTTP nor any route.
"""
