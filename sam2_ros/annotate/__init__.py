"""The data engine: a project of recordings and masklets; how masklets are made, verified, exported and measured."""
