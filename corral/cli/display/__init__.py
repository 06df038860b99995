"""How things are shown on a terminal or in a pipe: values, text, tables, progress, wrapped words. Knows no command."""
