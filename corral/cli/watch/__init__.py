"""`ps --watch`: the loaded models, drawn anew every second. `frame` makes the lines, `loop` asks, draws and waits."""
