"""Records that pass between rooms: frozen structs, constraints in the annotation."""
