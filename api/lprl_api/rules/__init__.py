"""What a spec must hold, beyond its schema; parsing with all errors at once."""
