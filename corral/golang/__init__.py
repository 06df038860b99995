"""Values as Go programs read and write them: JSON, durations, texts, moments."""
