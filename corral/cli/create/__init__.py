"""Making a model: the files that a Modelfile names, and how they get to the server. Source: spec cli §2.3, §7."""
