"""WordPiece vocabularies that this distribution ships (origin and licence: NOTICE)."""
