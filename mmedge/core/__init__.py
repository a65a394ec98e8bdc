"""Plain data and protocols; imports only the standard library, numpy and msgspec."""
