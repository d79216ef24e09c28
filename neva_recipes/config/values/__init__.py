"""The values of fields: which are accepted, and how they are typed, shown and compared."""
