"""Files to arrays and back: pictures and text; numpy, Pillow and tokenizers, no engine."""
