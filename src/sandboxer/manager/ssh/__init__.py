"""SSH: into the workspace the way of a consumer, and to the inside by a server of our own."""
