"""What a command is: its flags, its help page, and how its function is called. Knows no command."""
