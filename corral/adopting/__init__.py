"""Models that other programs have on this machine, and how they become Corral's without a second copy.

`walk` lists the files of a folder within bounds, `tools` knows how LM Studio, Hugging Face's cache, llama.cpp's cache
and plain folders lay theirs out, `grouping` makes models of files and names them, `judging` says what would become of
each, `taking` does it. Nothing of theirs is written to, moved or deleted.
"""
