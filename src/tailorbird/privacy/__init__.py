"""Privacy: everything held on a person, to hand over or to erase, and the proof that it is gone."""
