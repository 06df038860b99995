"""What a shell offers when Tab is pressed: the candidates, and the scripts by which the shells ask for them.

click has scripts too, but bash's splits words at the colons that names of models have, and click would have to read
our flags itself.
"""
