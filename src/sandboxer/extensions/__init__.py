"""Backend adapters. They get a resolved spec and a host, return a handle, and remember nothing."""
