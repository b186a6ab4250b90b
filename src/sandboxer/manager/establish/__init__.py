"""Establish sandboxes: plan a request, weigh the candidates, attempt them in turn, roll back what failed."""
