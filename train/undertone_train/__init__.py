"""Trains the small transformers that undertone ships, and exports them.

Every model here carries a leading *replica* axis: ``R`` independent runs (one seed each)
are trained side by side in one set of tensors, because one tiny transformer does not fill
a GPU. A replica's numbers never meet another's.
"""

__version__ = "0.1.0"
