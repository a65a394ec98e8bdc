"""The built-in captioner `builtin:scenes`: its pictures, its checkpoint and example questions."""
