"""Answer the routes, one module a seam: parse, one call on the manager, answer."""
